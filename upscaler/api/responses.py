"""The responses of the Upscaling API, as clients receive and OpenAPI describes them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, Field

from upscaler.models import UpscalingModel


class ImageResponse(BaseModel):
    """The response to an upscaling request (RES-1 to RES-3)."""

    image_b64: Annotated[
        str | None,
        Field(
            title="Image in Base64",
            description="The upscaled image as a file in base64, or null if it was withheld.",
        ),
    ]
    removed_for_safety: Annotated[
        bool,
        Field(title="Removed For Safety", description="Whether the image was withheld."),
    ]


class DryRunResponse(BaseModel):
    """What a request would result in, as far as that is known without inference."""

    output_width: Annotated[int, Field(title="Output Width", description="In pixels.")]
    output_height: Annotated[int, Field(title="Output Height", description="In pixels.")]
    model: Annotated[UpscalingModel, Field(title="Upscaling Model")]
    native_scale: Annotated[
        int,
        Field(
            title="Native Scale",
            description="How many times longer the network itself makes both sides.",
        ),
    ]
    tiles: Annotated[
        int,
        Field(
            title="Tiles",
            description="The number of overlapping bands that the image would be split into for "
            "lack of memory; 1 if it goes through the network whole.",
        ),
    ]
    estimated_seconds: Annotated[
        float,
        Field(
            title="Estimated Seconds",
            description="Of work, without the time in the queue; estimated from the images that "
            "this service has upscaled since it started, and a guess before the first.",
        ),
    ]
    faces: Annotated[
        list[tuple[int, int, int, int]] | None,
        Field(
            title="Faces",
            description="The faces that would be restored: left, top, right and bottom in pixels "
            "of the input. Left out if that is not asked for, or found out elsewhere.",
        ),
    ] = None


class AsyncResponse(BaseModel):
    """The response to an asynchronous request (ASY-1)."""

    response_id: Annotated[str, Field(title="Response ID")]
    poll_url: Annotated[str, Field(title="Poll URL", description="Where to poll for the status.")]


class JobStatus(StrEnum):
    """The status of an asynchronous inference; a failed one is completed, with an error."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"


class PollResponse(BaseModel):
    """The status of an asynchronous inference (ASY-2)."""

    status: Annotated[JobStatus, Field(title="Status")]
    response_url: Annotated[
        str | None,
        Field(title="Response URL", description="Where the result is, once it is completed."),
    ] = None


class JobSummary(BaseModel):
    """An asynchronous inference in a list (EXT-3). Sizes are in pixels, times in UTC."""

    response_id: Annotated[str, Field(title="Response ID")]
    status: Annotated[JobStatus, Field(title="Status")]
    error: Annotated[
        int | None,
        Field(title="Error", description="The status of its response, if it failed."),
    ] = None
    model: Annotated[UpscalingModel, Field(title="Upscaling Model")]
    input_width: Annotated[int, Field(title="Input Width")]
    input_height: Annotated[int, Field(title="Input Height")]
    output_width: Annotated[int, Field(title="Output Width")]
    output_height: Annotated[int, Field(title="Output Height")]
    rows_done: Annotated[int, Field(title="Rows Done", description="Of the output's height.")]
    created_at: Annotated[datetime, Field(title="Created At")]
    started_at: Annotated[datetime | None, Field(title="Started At")] = None
    finished_at: Annotated[datetime | None, Field(title="Finished At")] = None
    poll_url: Annotated[str, Field(title="Poll URL")]
    response_url: Annotated[
        str | None,
        Field(title="Response URL", description="Where the result is, once it is completed."),
    ] = None


class JobList(BaseModel):
    """A page of the asynchronous inferences of a token, the newest first (EXT-3)."""

    requests: Annotated[list[JobSummary], Field(title="Requests")]
    next_before: Annotated[
        str | None,
        Field(title="Next Before", description="The `before` of the next page, if there is one."),
    ] = None


class BatchMember(BaseModel):
    """One request of a batch (EXT-6): `error` is set if it failed, or never became a job."""

    index: Annotated[int, Field(title="Index")]
    name: Annotated[str, Field(title="Name", description="Of its file in the ZIP.")]
    response_id: Annotated[str | None, Field(title="Response ID")] = None
    status: Annotated[JobStatus, Field(title="Status")]
    response_url: Annotated[
        str | None,
        Field(title="Response URL", description="Where the file is, once it is completed."),
    ] = None
    error: Annotated[
        dict[str, Any] | None,
        Field(title="Error", description="The `status` and `detail` of its response."),
    ] = None


class Batch(BaseModel):
    """A batch, and how far it is (EXT-6)."""

    batch_id: Annotated[str, Field(title="Batch ID")]
    total: Annotated[int, Field(title="Total")]
    pending: Annotated[int, Field(title="Pending")]
    running: Annotated[int, Field(title="Running")]
    completed: Annotated[int, Field(title="Completed", description="Also those that failed.")]
    failed: Annotated[int, Field(title="Failed")]
    batch_url: Annotated[str, Field(title="Batch URL")]
    events_url: Annotated[str, Field(title="Events URL")]
    zip_url: Annotated[str, Field(title="ZIP URL")]
    members: Annotated[list[BatchMember], Field(title="Members")]


class WebhookSecret(BaseModel):
    """The secret of the webhooks for a token (EXT-5)."""

    secret: Annotated[
        str,
        Field(title="Secret", description="As libraries of Standard Webhooks take it."),
    ]


class WebhookTest(BaseModel):
    """What a webhook responded to a test (EXT-5)."""

    status: Annotated[int, Field(title="Status", description="The HTTP status.")]
    seconds: Annotated[float, Field(title="Seconds", description="How long it took.")]


class ErrorResponse(BaseModel):
    """The response to any other error than a broken rule (RES-7)."""

    detail: Annotated[str, Field(title="Detail", description="What is wrong, for people.")]


class ValidationError(BaseModel):
    """One broken rule (RES-4)."""

    loc: Annotated[list[str | int], Field(title="Location", description="The path to the field.")]
    msg: Annotated[str, Field(title="Message", description="What is wrong, for people.")]
    type: Annotated[str, Field(title="Error Type", description="What is wrong, for programs.")]


class HTTPValidationError(BaseModel):
    """The response to a request that breaks rules, with all of them (RES-4)."""

    detail: Annotated[list[ValidationError], Field(title="Detail", description="The broken rules.")]
