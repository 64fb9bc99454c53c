"""What a service is told: documents and collections. What is answered with 2xx is on the disk."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Request, Response

from gossamer.serving.access import ADMIN, READ, WRITE
from gossamer.serving.bulk import write_lines
from gossamer.serving.loading import Loading
from gossamer.serving.records import (
    BulkWritten,
    CollectionDropped,
    CollectionInfo,
    CollectionList,
    CreateRequest,
    DeleteRequest,
    Document,
    DocumentBody,
    InteractionsRequest,
    Listed,
    ListRequest,
    PutRequest,
    Stored,
    Written,
)
from gossamer.serving.routes import CollectionName, UsesCollections, UsesEngine, written

router = APIRouter()

DocumentId = Annotated[str, Path(min_length=1, max_length=512)]


@router.get("/collections", dependencies=READ)
def list_collections(collections: UsesCollections) -> CollectionList:
    """All collections, and what they answer from."""
    return CollectionList(collections=[collections.info(name) for name in collections])


@router.post("/collections", status_code=201, dependencies=ADMIN)
def create_collection(request: CreateRequest, collections: UsesCollections) -> CollectionInfo:
    """Make a collection without documents."""
    return collections.create(request)


@router.get("/collections/{collection}", dependencies=READ)
def inspect_collection(collection: CollectionName, collections: UsesCollections) -> CollectionInfo:
    """What a collection answers from."""
    return collections.info(collection)


@router.delete("/collections/{collection}", dependencies=ADMIN)
def drop_collection(collection: CollectionName, collections: UsesCollections) -> CollectionDropped:
    """Delete a collection that was made here, with its documents."""
    collections.drop(collection)
    return CollectionDropped(name=collection)


@router.post("/collections/{collection}/reload", dependencies=ADMIN)
def reload_collection(collection: CollectionName, collections: UsesCollections) -> CollectionInfo:
    """Read the collection's file anew and answer from what it names, without failing a request; or stay as it was."""
    return collections.reload(collection)


@router.post("/collections/{collection}/documents", response_model=Written, dependencies=WRITE)
def put_documents(request: PutRequest, engine: UsesEngine) -> Response:
    """Add documents, in the place of those of the same ids."""
    return written(engine.put(request.documents))


_LINES = {
    "requestBody": {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}, "required": True}
}


@router.post(
    "/collections/{collection}/documents/bulk",
    response_model=BulkWritten,
    openapi_extra=_LINES,
    dependencies=WRITE,
)
async def put_lines(request: Request, engine: UsesEngine) -> Response:
    """Add documents, a JSON object a line, of any number; read as fast as they are written. Bad lines are named."""
    loading: Loading = request.app.state.loading
    return written(await write_lines(request.stream(), engine, lambda: loading.is_stopping))


@router.post("/collections/{collection}/documents/delete", response_model=Written, dependencies=WRITE)
def delete_documents(request: DeleteRequest, engine: UsesEngine) -> Response:
    """Take documents out, by their ids (those that are not there are passed over) or by a filter."""
    return written(engine.answer_delete(request))


@router.post("/collections/{collection}/documents/list", response_model=Listed, dependencies=READ)
def list_documents(request: ListRequest, engine: UsesEngine) -> Response:
    """Documents by their ids, a page at a time."""
    return written(engine.answer_documents(request))


@router.post("/collections/{collection}/interactions", response_model=Written, dependencies=WRITE)
def put_interactions(request: InteractionsRequest, engine: UsesEngine) -> Response:
    """Keep what users took; the next recommendation knows it."""
    return written(engine.interact([dict(one) for one in request.interactions]))


@router.put("/collections/{collection}/documents/{id:path}", response_model=Written, dependencies=WRITE)
def put_document(id: DocumentId, body: Annotated[DocumentBody, Body()], engine: UsesEngine) -> Response:
    """Add a document, in the place of that of the same id."""
    return written(engine.put([Document(id=id, **dict(body))]))


@router.get("/collections/{collection}/documents/{id:path}", response_model=Stored, dependencies=READ)
def get_document(id: DocumentId, engine: UsesEngine) -> Response:
    """A document as it is stored."""
    return written(engine.get(id))


@router.delete("/collections/{collection}/documents/{id:path}", response_model=Written, dependencies=WRITE)
def delete_document(id: DocumentId, engine: UsesEngine) -> Response:
    """Take a document out; 404 if it is not there."""
    engine.get(id)
    return written(engine.delete([id]))
