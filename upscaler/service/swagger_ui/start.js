// Shows the description that lies beside this page.
"use strict";

const base = new URL(".", location).pathname;

// A server that hands on what is below a path of its own may not have told the service of it.
function BelowPath() {
    const updateJsonSpec = (update) => (spec) =>
        update(base === "/" ? spec : { servers: [{ url: base }], ...spec });
    return { statePlugins: { spec: { wrapActions: { updateJsonSpec } } } };
}

SwaggerUIBundle({
    url: "openapi.json",
    domNode: document.querySelector("#docs"),
    deepLinking: true,
    plugins: [BelowPath],
    validatorUrl: null, // or the address of the description would go to a server of Swagger's
});
