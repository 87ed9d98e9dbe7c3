"""Make the XMP of an image fit for another size of it, upright and in sRGB (ISO 16684-1).

A property is an attribute or an element, whose name is in a namespace.
"""

from typing import Final
from xml.dom import minidom
from xml.parsers.expat import ExpatError

MAX_XMP_BYTES: Final = 65_502
"""What fits into a segment of a JPEG behind its length and the signature (XMP part 3, 1.1.3)."""

_TIFF: Final = "http://ns.adobe.com/tiff/1.0/"
_EXIF: Final = "http://ns.adobe.com/exif/1.0/"
_FIXED: Final = {(_TIFF, "Orientation"), (_EXIF, "ColorSpace")}
"""What becomes "1": upright, and sRGB, as the result is."""
_DROPPED: Final = frozenset(
    (
        # How the old file stores its samples, and what they mean: as in EXIF.
        *((_TIFF, name) for name in ("ImageWidth", "ImageLength", "BitsPerSample", "Compression")),
        *((_TIFF, name) for name in ("PhotometricInterpretation", "SamplesPerPixel")),
        *((_TIFF, name) for name in ("PlanarConfiguration", "YCbCrSubSampling")),
        *((_TIFF, name) for name in ("YCbCrPositioning", "YCbCrCoefficients", "WhitePoint")),
        *((_TIFF, name) for name in ("PrimaryChromaticities", "ReferenceBlackWhite")),
        *((_TIFF, name) for name in ("TransferFunction", "NativeDigest")),
        *((_EXIF, name) for name in ("PixelXDimension", "PixelYDimension", "NativeDigest")),
        ("http://ns.adobe.com/photoshop/1.0/", "ICCProfile"),
        # The image as it was, and the name of a second packet, which is not carried over.
        ("http://ns.adobe.com/xap/1.0/", "Thumbnails"),
        ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP"),
    )
)
"""The properties that are wrong for the result."""
_DROPPED_NAMESPACES: Final = (
    "http://ns.google.com/photos/",
    "http://ns.adobe.com/hdr-gain-map/",
)
"""How the namespaces begin whose properties describe films, depths and gain maps in the same file,
or a panorama by sizes in pixels."""


def adapt_xmp(packet: bytes) -> bytes:
    """The XMP packet (UTF-8) of an image, adapted for its upscaled result.

    The orientation becomes 1 and the colour space sRGB. Thumbnails and all properties that describe
    the old file's size, samples or colours are removed, as is the padding around the packet. Raises
    ValueError for anything but well-formed XML without a DTD, of at most MAX_XMP_BYTES.
    """
    if len(packet) > MAX_XMP_BYTES or b"<!DOCTYPE" in packet:
        raise ValueError("this XMP is too long, or has a DTD, which can make it longer")
    text = packet.decode().strip("\ufeff\0 \t\r\n")
    try:
        document = minidom.parseString(text)  # noqa: S318  without a DTD there are no entities
        for element in document.getElementsByTagNameNS("*", "*"):
            _adapt(element, document)
        adapted = "".join(node.toxml() for node in document.childNodes).encode()
    except (ExpatError, RecursionError) as error:
        raise ValueError("this XMP is damaged, or nested too deeply") from error
    if not document.documentElement or len(adapted) > MAX_XMP_BYTES:
        raise ValueError("this XMP is damaged, or too long")
    return adapted


def _adapt(element: minidom.Element, document: minidom.Document) -> None:
    """Adapt an element and its attributes."""
    for attribute in list(element.attributes.values()):
        if _is_dropped(attribute):
            element.removeAttributeNode(attribute)
        elif (attribute.namespaceURI, attribute.localName) in _FIXED:
            attribute.value = "1"
    if _is_dropped(element) and element.parentNode:
        element.parentNode.removeChild(element)
    elif (element.namespaceURI, element.localName) in _FIXED:
        element.childNodes[:] = [document.createTextNode("1")]


def _is_dropped(node: minidom.Element | minidom.Attr) -> bool:
    namespace = node.namespaceURI or ""
    return (namespace, node.localName) in _DROPPED or namespace.startswith(_DROPPED_NAMESPACES)
