"""The server's addresses, and what /openapi.json says of them."""

import tomllib
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from runtime.errors import shortened
from serving import open_inference as v2
from serving import tf_serving as v1
from serving.answers import Answer, Error
from serving.bodies import read_body
from serving.guard import TOLD, guarded
from serving.json_text import written
from serving.log import AccessLog
from serving.metrics import Metrics
from serving.models import Models, Served
from serving.page import example_instances, page
from serving.refusal import Refusal, later
from serving.settings import Settings
from serving.slots import Slots
from tasks.prediction.saved_model import LoadedModel

NAME = "heaviside"
MEANINGS = {
    HTTPStatus.BAD_REQUEST: "the request is not valid; the message names the input, and the row counted from 0",
    HTTPStatus.UNAUTHORIZED: "a token is needed, and this is not it",
    HTTPStatus.NOT_FOUND: "no such model, or another version of it",
    HTTPStatus.REQUEST_TIMEOUT: "the body did not arrive in time",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is too long",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "the body is compressed",
    HTTPStatus.UNPROCESSABLE_ENTITY: "the model has no finite answer",
    HTTPStatus.INTERNAL_SERVER_ERROR: "a defect of the model or the server",
    HTTPStatus.SERVICE_UNAVAILABLE: "busy or still loading: try again",
    HTTPStatus.GATEWAY_TIMEOUT: "the answer took too long: try again",
}
EVERYWHERE = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED)
ABOUT_MODEL = (*EVERYWHERE, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
Responses = dict[int | str, dict[str, Any]]
VERSION_HEADERS = ("X-Model-Name", "X-Model-Version")  # of what has computed


def make_app(models: Models, settings: Settings, metrics: Metrics, log: AccessLog) -> ASGIApp:
    """Return the server's application.

    Args:
        models: that it serves.
        settings: limits and token.
        metrics: that count.
        log: of the requests.
    """
    slots = Slots(settings.limits)
    metrics.watch(lambda: slots.computing, lambda: slots.waiting, lambda: models.ready)
    app = FastAPI(title=NAME, version=project_version(), docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(Refusal, lambda _, error: refused(error))
    app.add_exception_handler(HTTPException, lambda _, error: not_here(error))
    app.add_exception_handler(Exception, lambda *_: defect())
    add_health(app, models)
    add_open_inference(app, models, settings, slots)
    add_tf_serving(app, models, settings, slots)
    add_pages(app, models, settings, metrics)
    app.openapi = lambda: described(app, models, settings)  # type: ignore[method-assign]
    return guarded(app, settings, metrics, log)


def add_health(app: FastAPI, models: Models) -> None:
    @app.get("/v2", responses=errors(EVERYWHERE))
    async def server_metadata() -> v2.ServerMetadata:
        return v2.ServerMetadata(name=NAME, version=app.version, extensions=["binary_tensor_data"])

    @app.get("/v2/health/live", responses=errors((HTTPStatus.BAD_REQUEST,)))
    async def live() -> v2.Live:
        return v2.Live(live=True)

    not_ready: Responses = {503: {"model": v2.Ready, "description": "models are loading, or the server is ending"}}

    @app.get("/v2/health/ready", responses={**errors((HTTPStatus.BAD_REQUEST,)), **not_ready})
    async def ready(response: Response) -> v2.Ready:
        if not models.ready:
            response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        return v2.Ready(ready=models.ready)


def add_open_inference(app: FastAPI, models: Models, settings: Settings, slots: Slots) -> None:
    responses = errors(ABOUT_MODEL)

    async def about(model: str, version: str | None) -> v2.ModelMetadata:
        return v2.metadata(find(models, model, version).model)

    async def is_ready(model: str, version: str | None) -> v2.ModelReady:
        return v2.ModelReady(name=find(models, model, version).model.name, ready=True)

    async def infer(request: Request, model: str, version: str | None) -> Response:
        def work(chosen: LoadedModel, body: bytes) -> Answer:
            return v2.infer(chosen, body, request.headers.get(v2.HEADER), settings.limits.rows)

        return await compute(request, partial(find, models, model, version), work, settings, slots, "v2")

    @app.get("/v2/models/{model}", responses=responses)
    async def model_metadata(model: str) -> v2.ModelMetadata:
        return await about(model, None)

    @app.get("/v2/models/{model}/versions/{version}", responses=responses)
    async def version_metadata(model: str, version: str) -> v2.ModelMetadata:
        return await about(model, version)

    @app.get("/v2/models/{model}/ready", responses=responses)
    async def model_ready(model: str) -> v2.ModelReady:
        return await is_ready(model, None)

    @app.get("/v2/models/{model}/versions/{version}/ready", responses=responses)
    async def version_ready(model: str, version: str) -> v2.ModelReady:
        return await is_ready(model, version)

    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    inferred = computed(v2.InferRequest, v2.InferResponse, binary)

    @app.post("/v2/models/{model}/infer", **inferred)
    async def model_infer(request: Request, model: str) -> Response:
        return await infer(request, model, None)

    @app.post("/v2/models/{model}/versions/{version}/infer", **inferred)
    async def version_infer(request: Request, model: str, version: str) -> Response:
        return await infer(request, model, version)


def add_tf_serving(app: FastAPI, models: Models, settings: Settings, slots: Slots) -> None:
    responses = errors(ABOUT_MODEL)

    async def predict(request: Request, model: str, version: str | None) -> Response:
        def work(chosen: LoadedModel, body: bytes) -> Answer:
            return v1.predict(chosen, body, settings.limits.rows)

        return await compute(request, partial(find, models, model, version), work, settings, slots, "v1")

    predicted = computed(v1.PredictRequest, v1.PredictResponse, {})

    @app.post("/v1/models/{model}:predict", **predicted)
    async def model_predict(request: Request, model: str) -> Response:
        return await predict(request, model, None)

    @app.post("/v1/models/{model}/versions/{version}:predict", **predicted)
    async def version_predict(request: Request, model: str, version: str) -> Response:
        return await predict(request, model, version)

    @app.get("/v1/models/{model}", responses=responses)
    async def model_status(model: str) -> v1.ModelStatus:
        return v1.status(find(models, model, None).model)

    @app.get("/v1/models/{model}/versions/{version}", responses=responses)
    async def version_status(model: str, version: str) -> v1.ModelStatus:
        return v1.status(find(models, model, version).model)

    @app.get("/v1/models/{model}/metadata", responses=responses)
    async def model_signature(model: str) -> v1.MetadataResponse:
        return v1.metadata(find(models, model, None).model)

    @app.get("/v1/models/{model}/versions/{version}/metadata", responses=responses)
    async def version_signature(model: str, version: str) -> v1.MetadataResponse:
        return v1.metadata(find(models, model, version).model)


def add_pages(app: FastAPI, models: Models, settings: Settings, metrics: Metrics) -> None:
    @app.get("/", response_class=HTMLResponse, responses=errors(EVERYWHERE))
    async def overview(request: Request) -> HTMLResponse:
        return HTMLResponse(page(models, settings, request.headers.get("host", "")))

    text: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @app.get("/metrics", response_class=Response, responses={**errors(EVERYWHERE), **text})
    async def counts() -> Response:
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def compute(
    request: Request,
    find_model: Callable[[], Served],
    work: Callable[[LoadedModel, bytes], Answer],
    settings: Settings,
    slots: Slots,
    protocol: str,
) -> Response:
    """Answer a prediction by one model, which the request keeps from here to its end.

    Args:
        request: whose body is read before it gets a turn.
        find_model: returns the model, or raises Refusal.
        work: takes the model and the body, in a thread.
        settings: the limits.
        slots: where it waits for its turn.
        protocol: for the metrics.
    """
    told = request.scope[TOLD]
    told.protocol = protocol
    body = await read_body(request, settings.limits)
    model = find_model().model
    told.model, told.version = model.name, model.version
    answer = await slots.run(lambda: work(model, body))
    told.rows = answer.rows
    said = dict(zip(VERSION_HEADERS, (quote(model.name), quote(model.version)), strict=True))
    return Response(answer.body, media_type=answer.media_type, headers={**said, **answer.headers})


def find(models: Models, name: str, version: str | None) -> Served:
    """Return a model; raises Refusal if it is unknown, has another version, or is still being loaded."""
    served = models.current.get(name)
    if not served:
        if not models.loaded and (name in models.expected or not models.expected):
            raise later(HTTPStatus.SERVICE_UNAVAILABLE, f"{shortened(repr(name))} is being loaded; try again.")
        known = ", ".join(sorted(models.current)) or "(none)"
        raise Refusal(HTTPStatus.NOT_FOUND, f"there is no model {shortened(repr(name))}. The models: {known}.")
    if version is not None and version != served.model.version:
        told = f"{name} {shortened(repr(version))} is not served; {served.model.version} is."
        raise Refusal(HTTPStatus.NOT_FOUND, told)
    return served


def refused(error: Refusal) -> Response:
    return Response(written({"error": str(error)}), error.status, error.headers, "application/json")


def not_here(error: HTTPException) -> Response:
    """Return the answer to an address or a method that does not exist."""
    return Response(written({"error": error.detail}), error.status_code, error.headers, "application/json")


def defect() -> Response:
    return Response(written({"error": "the request was not answered: a defect."}), 500, None, "application/json")


def errors(statuses: tuple[HTTPStatus, ...]) -> Responses:
    return {int(status): {"model": Error, "description": MEANINGS[status]} for status in statuses}


def computed(request: type, response: type, more_content: dict[str, Any]) -> dict[str, Any]:
    """Return what a route says of a prediction.

    Args:
        request: the model of its body.
        response: the model of its answer.
        more_content: further forms of the answer.
    """
    header = {name: {"schema": {"type": "string"}, "required": True} for name in VERSION_HEADERS}
    success = {"model": response, "description": "the answer", "headers": header, "content": more_content}
    schema = request.model_json_schema(ref_template="#/components/schemas/{model}")  # type: ignore[attr-defined]
    return {
        "response_class": Response,
        "responses": {200: success, **errors(tuple(MEANINGS))},
        "openapi_extra": {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
    }


def described(app: FastAPI, models: Models, settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI description, with the served models as examples."""
    made = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = made.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    served = [entry.model for entry in models.current.values()]
    for path, operations in made["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            # FastAPI adds its own error to every route with a parameter; no parameter here can be wrong.
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]
            for parameter in operation.get("parameters", ()):
                values = [model.name if parameter["name"] == "model" else model.version for model in served]
                if values:
                    parameter["examples"] = {value: {"value": value} for value in values}
            if body := operation.get("requestBody"):
                content = body["content"]["application/json"]
                schemas.update(content["schema"].pop("$defs", {}))
                if served:
                    content["examples"] = {m.name: {"value": example_body(models, m.name, path)} for m in served}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    if settings.token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
    return made


def example_body(models: Models, name: str, path: str) -> dict[str, Any]:
    """Return a valid request for a model, of the protocol that the path is of."""
    served = models.current[name]
    [row] = example_instances(served)
    if path.startswith("/v1"):
        return {"instances": [row]}
    inputs = v2.metadata(served.model).inputs
    return {
        "inputs": [
            {"name": given.name, "shape": [1, *given.shape[1:]], "datatype": given.datatype, "data": [row[given.name]]}
            for given in inputs
        ]
    }


def project_version() -> str:
    try:
        text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
        return tomllib.loads(text)["project"]["version"]
    except (OSError, ValueError, KeyError):
        return "unknown"
