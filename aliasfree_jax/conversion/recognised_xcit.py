"""Recognises the networks of the Alias-Free ViT and of facebookresearch/xcit from keys and shapes."""

from typing import Any

from aliasfree_jax.conversion.alias_free_vit import MODULES, SCALES, SOURCE, named
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.conversion.xcit_entries import State, read_off


def recognise_alias_free_vit(state: State) -> tuple[str, dict[str, Any]] | None:
    """Recognises a network from keys and shapes. Choices without weights have their published values.

    Returns:
      Its name and options. None for weights of another code base.
    """
    found = read_off(state)
    if found is None:
        return None
    features = "avgpool" if "cls_token" not in state else "cls_attn"
    positions = any(key.startswith(("pos_embeder.", "pos_module.")) for key in state)
    options = {**found, "use_pos": positions, "tokens_norm": True}
    if "blocks.0.local_mp.bn.weight" in state:
        model = named("xcit_aps" if "patch_embed.proj.3.0.weight" in state else "xcit", found)
        options["features_type"] = features
        if model.removeprefix("xcit_").startswith("nano") and features == "cls_attn":
            raise UndecidedError(
                f"this is {model} of facebookresearch/xcit, which norms only the class token, or that of "
                f"{SOURCE}, which norms all tokens. Both have the same tensors.",
                {"source": SOURCE, "model": model, "options": {**options, "tokens_norm": False}},
            )
        return model, options
    if "cls_attn_blocks.0.attn.temperature" in state:
        features = "cls_attn_af"
    cfg: dict[str, Any] = {"features_type": features}
    for part, key in MODULES.items():
        cfg[part] = "up_poly" if f"{key}.act_layer.coef" in state else "up_gelu"
        scales = {s: float(state[k][0]) for s in SCALES if (k := f"{key}.act_layer.{s}") in state}
        if cfg[part] == "up_poly" and len(scales) < 2:  # only constants other than 1 are stored
            cfg[f"{part}_kwargs"] = {**scales, "train_scale": False}
    if "patch_embed.proj.1.coef" in state:
        cfg["pe_first_act"] = "lpf_poly"
        cfg["pe_act"] = "up_poly" if "patch_embed.proj.4.act_layer.coef" in state else "up_gelu"
    cfg["pe_fuse_down"] = "patch_embed.proj.2.0.weight" in state or "patch_embed.proj.5.0.weight" in state
    return named("xcit_af", found), {**options, "cfg": cfg}
