"""Pure: which modalities are one kind of picture, whoever named them."""

from __future__ import annotations

from retrieval.filters.tree import fold

_SAME = (
    ("x-ray", "xray", "x ray", "cr", "dr", "dx", "rg", "xr", "radiograph", "radiography"),
    ("mr", "mri"),
    ("us", "ultrasound", "ivus"),
    ("pt", "pet"),
    ("mg", "mammography", "mammogram"),
)
_KINDS = {name: names[0] for names in _SAME for name in names}


def names_of(modality: str) -> tuple[str, ...]:
    """All names of the kind that a modality is of, the modality itself among them."""
    kind = kind_of(modality)
    return tuple(name for name, of in _KINDS.items() if of == kind) or (modality,)


def kind_of(modality: str) -> str:
    """A name that is equal for modalities of one kind (DX, CR and X-ray), for comparing; "" for an unknown one."""
    told = fold(modality.strip())
    return _KINDS.get(told, told)
