"""Forms with files: the dependency that streams a body in, and the check of its fields."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from api.access import Caller, Reader, Writer
from api.uploads import Upload, receive

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Form:
    """A body that was received from an admitted caller."""

    caller: Caller
    upload: Upload

    def fields(self, model: type[M]) -> M:
        """The fields as the model; a validation error becomes the same 422 as any other."""
        try:
            return model.model_validate(self.upload.fields)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error


async def _received(request: Request, caller: Caller) -> AsyncIterator[Form]:
    with caller.service.uploading.place():
        async with receive(request, caller.service.scratch.path) as upload:
            yield Form(caller, upload)


async def _reader_form(request: Request, caller: Reader) -> AsyncIterator[Form]:
    async for form in _received(request, caller):
        yield form


async def _writer_form(request: Request, caller: Writer) -> AsyncIterator[Form]:
    async for form in _received(request, caller):
        yield form


ReaderForm = Annotated[Form, Depends(_reader_form)]
WriterForm = Annotated[Form, Depends(_writer_form)]
