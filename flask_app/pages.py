"""The interactive documentation: Swagger UI, its scripts served from here and nothing fetched from elsewhere."""

from types import MappingProxyType

from flask import Blueprint, Response, send_from_directory
from werkzeug.exceptions import NotFound

SECURITY_HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }
)
# Out of the wheel's files only what the page needs.
_FILES = frozenset({"swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"})
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tagwire REST API</title>
<link rel="stylesheet" href="swagger-ui.css">
<link rel="icon" type="image/png" href="favicon-32x32.png">
</head>
<body>
<div id="page"></div>
<noscript>The document behind this page is <a href="/api/v1/openapi.json">/api/v1/openapi.json</a>.</noscript>
<script src="swagger-ui-bundle.js"></script>
<script src="start.js"></script>
</body>
</html>
"""
# validatorUrl: Swagger UI would otherwise send every document it shows to validator.swagger.io.
_START = """SwaggerUIBundle({
  url: "/api/v1/openapi.json",
  dom_id: "#page",
  validatorUrl: null,
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  filter: true,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
_AGE_S = 3600


def blueprint() -> Blueprint:
    """The page at /docs/ and its files."""
    result = Blueprint("pages", __name__, url_prefix="/docs")

    @result.get("/")
    def page() -> Response:
        return Response(_PAGE, mimetype="text/html")

    @result.get("/start.js")
    def start() -> Response:
        return Response(_START, mimetype="text/javascript")

    @result.get("/<name>")
    def file(name: str) -> Response:
        if name not in _FILES:
            raise NotFound
        # Imported when the page is first looked at: most starts never need it.
        from swagger_ui_bundle import swagger_ui_path

        return send_from_directory(str(swagger_ui_path), name, max_age=_AGE_S)

    return result
