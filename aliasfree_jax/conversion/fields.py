"""Translates the arguments of a library's constructor, or the fields of its configuration.

An argument is translated, or it has no effect on the function of the weights, or it is refused by name if its
value has no counterpart here. No argument is ignored silently.
"""

import dataclasses
import numbers
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aliasfree_jax.conversion.description import KIND
from aliasfree_jax.conversion.entries import Options, check_options
from aliasfree_jax.errors import ConversionError

ACTIVATIONS = {"relu": "Relu", "gelu": "Gelu", "relu6": "Relu6"}  # the libraries' word -> our layer
GLOBAL_POOLS = {"avg": "mean", "max": "max", "": ""}  # timm's word -> ours

# Fields without effect that any configuration of transformers may contain.
TRANSFORMERS_WITHOUT_EFFECT = frozenset(
    "architectures model_type id2label label2id problem_type finetuning_task task_specific_params "
    "transformers_version _name_or_path name_or_path _commit_hash dtype torch_dtype torchscript use_bfloat16 "
    "return_dict output_hidden_states output_attentions _output_attentions attn_implementation "
    "_attn_implementation _attn_implementation_autoset tie_word_embeddings chunk_size_feed_forward "
    "is_encoder_decoder is_decoder add_cross_attention cross_attention_hidden_size tie_encoder_decoder "
    "pruned_heads tf_legacy_loss tokenizer_class prefix bos_token_id eos_token_id pad_token_id sep_token_id "
    "decoder_start_token_id max_length min_length do_sample early_stopping num_beams num_beam_groups "
    "diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty "
    "no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores "
    "return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values "
    "exponential_decay_length_penalty suppress_tokens begin_suppress_tokens "
    "out_features out_indices stage_names initializer_range image_size".split()
)


def activation_word(part: Mapping[str, Any]) -> str | None:
    """Returns the libraries' word for a described activation. None if they lack it."""
    return next((word for word, layer in ACTIVATIONS.items() if layer == part[KIND]), None)


def pool_word(network: Mapping[str, Any]) -> str:
    """Returns timm's word for the pooling of a described network."""
    return next(word for word, ours in GLOBAL_POOLS.items() if ours == network["global_pool"])


def number_of_labels(config: Options) -> int:
    """Returns the number of classes in a configuration of transformers: stated, counted or the default 2."""
    labels = config.get("id2label")
    count = config.get("num_labels", len(labels) if isinstance(labels, Mapping) else 2)
    if not isinstance(count, int):
        raise ConversionError(f"num_labels={count!r}: expected a number of classes.")
    return count


@dataclasses.dataclass(frozen=True)
class Only:
    """The values of a field that can be converted.

    Attributes:
      values: The legal values. The library's default comes first.
      others: The end of the message "resnet18 with this value has ...".
    """

    values: tuple[Any, ...]
    others: str


@dataclasses.dataclass(frozen=True)
class Fields:
    """The fields of one family of networks.

    Attributes:
      translated: The fields that `read` returns, with the library's defaults.
      without_effect: Fields about initialisation, training or metadata. They do not change the function.
      only: Fields with some values that cannot be converted. They may be translated fields too.
      optional: Translated fields that may be None.
    """

    translated: Options
    without_effect: Collection[str] = ()
    only: Mapping[str, Only] = dataclasses.field(default_factory=dict)
    optional: Collection[str] = ()

    def read(self, what: str, options: Options) -> dict[str, Any]:
        """Reads the translated fields.

        Args:
          what: The library and its network, for messages.
          options: The given fields.

        Returns:
          The translated fields, defaults included. Lists become tuples.

        Raises:
          ConversionError: A field is unknown, has a wrong type, or has a value that cannot be converted.
        """
        check_options(what, options, {*self.translated, *self.without_effect, *self.only})
        given = {name: _plain(value) for name, value in options.items()}
        for name, only in self.only.items():
            if name in given and given[name] not in only.values:
                known = " or ".join(map(repr, only.values))
                raise ConversionError(
                    f"{what} with {name}={options[name]!r} has {only.others}. No network of this package "
                    f"has that. Only {name}={known} can be converted."
                )
        read = dict(self.translated)
        for name in read.keys() & given.keys():
            absent = given[name] is None and name in self.optional
            if not (absent or _alike(given[name], read[name])):
                raise ConversionError(
                    f"{what} has {name}={options[name]!r}: expected a value such as {read[name]!r}."
                )
            read[name] = given[name]
        return read


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _alike(value: Any, default: Any) -> bool:
    """Whether `value` has the type of `default`."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_alike(one, default[0]) and one > 0 for one in value)
    if isinstance(default, float):
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    return type(value) is type(default)


def check_stages(what: str, stages: int | None, **sizes: Sequence[int]) -> None:
    """Raises `ConversionError` unless all `sizes` have equal lengths: `stages`, if that is given."""
    counts = {len(values) for values in sizes.values()} | ({stages} if stages is not None else set())
    if len(counts) > 1 or 0 in counts:
        shown = " and ".join(f"{name} {list(values)}" for name, values in sizes.items())
        expected = f"{stages} stages" if stages is not None else "the same number of stages in both"
        raise ConversionError(f"{what} has {shown}: expected {expected}.")
