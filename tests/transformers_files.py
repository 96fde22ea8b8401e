"""Small models of transformers with random weights of a fixed seed, saved as their authors save them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KINDS = ("dinov2", "dinov3_vit", "siglip", "clip", "vit", "curia")
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_VOCABULARY = ("<pad>", "</s>", "<unk>", "chest", "x-ray", "normal", "heart", "large", ".", ",")
CONTEXT = 12


def make_transformers(kind: str, folder: Path, seed: int = 0, **processor: Any) -> Any:
    """The model, after it and its processor (settings changed by ``processor``) have been saved in ``folder``."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(seed)
    model, processor_of = _built(kind)
    model.eval().save_pretrained(folder)
    if kind == "curia":
        _save_curia(folder, **processor)
    else:
        processor_of(**processor)().save_pretrained(folder)
    if kind in ("siglip", "clip"):
        _save_tokenizer(folder)
    return model


def _built(kind: str) -> tuple[Any, Any]:
    """(model, a maker of its processor): settings as MedSigLIP, RAD-DINO and the others have them, but small."""
    import transformers as t

    image = {**_SMALL, "image_size": 64, "patch_size": 16}
    text = {**_SMALL, "vocab_size": len(_VOCABULARY), "max_position_embeddings": CONTEXT, "pad_token_id": 0,
            "bos_token_id": 1, "eos_token_id": 1}  # fmt: skip
    square, short = {"height": 64, "width": 64}, {"shortest_edge": 64}
    if kind == "dinov2":
        config = t.Dinov2Config(**{**image, "image_size": 56, "patch_size": 14})
        side = {"size": {"shortest_edge": 63}, "crop_size": {"height": 56, "width": 56}}
        mean = {"image_mean": [0.5307, 0.5307, 0.5307], "image_std": [0.2583, 0.2583, 0.2583]}
        return t.Dinov2Model(config), lambda **more: lambda: t.BitImageProcessor(**{**side, **mean, **more})
    if kind == "dinov3_vit":
        model = t.DINOv3ViTModel(t.DINOv3ViTConfig(**image, num_register_tokens=4))
        return model, lambda **more: lambda: t.DINOv3ViTImageProcessor(**{"size": square, **more})
    if kind == "siglip":
        model = t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=image))
        _set(model.logit_scale, 1.5), _set(model.logit_bias, -2.0)
        settings = {"size": square, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        return model, lambda **more: lambda: t.SiglipImageProcessor(**{**settings, **more})
    if kind == "clip":
        model = t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=image, projection_dim=24))
        settings = {"size": short, "crop_size": square}
        return model, lambda **more: lambda: t.CLIPImageProcessor(**{**settings, **more})
    if kind == "vit":
        model = t.ViTForImageClassification(t.ViTConfig(**image))  # as most ViTs are published: with a head of classes
        return model, lambda **more: lambda: t.ViTImageProcessor(**{"size": square, **more})
    return t.Dinov2Model(t.Dinov2Config(**image, num_channels=1)), None


def _set(parameter: Any, value: float) -> None:
    parameter.data.fill_(value)


def _save_curia(folder: Path, **settings: Any) -> None:
    stated = {
        "auto_map": {"AutoImageProcessor": "curia_image_processor.CuriaImageProcessor"},
        "image_processor_type": "CuriaImageProcessor",
        "clip_below_air": True,
        "crop_size": 64,
        "do_normalize": True,
        "do_resize": True,
        "eps": 1e-06,
        **settings,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({word: number for number, word in enumerate(_VOCABULARY)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
