"""The wire of the MedImageInsights service contract. Unlike everywhere else, unknown fields are ignored, as there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.schemas import Wire

Text = Annotated[str, StringConstraints(max_length=20_000)]
PromptLabel = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class ContractAsked(BaseModel):
    """Base of the contract's requests."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class EncodeAsked(ContractAsked):
    images: list[str] | None = Field(
        None, description="base64 (a data-URI prefix is accepted) of picture, DICOM, NIfTI, ... files, each by itself"
    )
    texts: list[Text] | None = Field(None, description="needs an encoder with a text tower")


class EncodeAnswer(Wire):
    """Vectors of length 1, in the order of the request; null for what was not asked."""

    image_embeddings: list[list[float]] | None
    text_embeddings: list[list[float]] | None


class PredictAsked(ContractAsked):
    images: list[str] = Field(description="base64 (a data-URI prefix is accepted), as for /encode")
    labels: list[PromptLabel] = Field(
        description="asked of the text tower as 'LABEL.'; one that comes twice counts once"
    )
    multilabel: bool = Field(False, description="each label by itself against neutral prompts, instead of one of all")


class PredictAnswer(Wire):
    """For each image its labels with their probabilities, the most probable first."""

    predictions: list[dict[str, float]]


class ContractHealth(Wire):
    status: Literal["healthy"]


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI request body of a route that reads its JSON itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}
