// Shows the service's OpenAPI document in Swagger UI.
"use strict";

const base = new URL(".", location).pathname;

// A plugin. Behind a proxy with a path prefix, the service may not know the prefix, so the server's
// URL is taken from the page's own.
function ServerFromLocation() {
    const updateJsonSpec = (update) => (spec) =>
        update(base === "/" ? spec : { servers: [{ url: base }], ...spec });
    return { statePlugins: { spec: { wrapActions: { updateJsonSpec } } } };
}

SwaggerUIBundle({
    url: "openapi.json",
    domNode: document.querySelector("#docs"),
    deepLinking: true,
    plugins: [ServerFromLocation],
    validatorUrl: null, // or Swagger's own server would be sent the document's URL
});
