"""The loss of a reference language model, as a difficulty metric of dataeff."""

import functools
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
import numpy as np
import torch
from dataeff.corpus import Shard
from dataeff.metrics import Metric
from numpy.typing import ArrayLike, NDArray
from torch.nn.functional import cross_entropy

_turn = threading.Lock()  # threads of one process share the model and the memory of its device


@attrs.frozen
class refloss(Metric):
    """The mean loss of each sample under a causal language model, in nats per predicted token. float64.

    Every token but the first is predicted from those before it; nothing is put in front of a sample. One of 0
    or 1 tokens has loss 0. One longer than the model (or `max_length`) takes is scored in windows that
    overlap by one token, so that each token still counts once. The tokens must be of the model's tokenizer.

    Samples of similar length are padded to one batch, and the model rounds a little differently in other
    company. So values agree to float noise between batch sizes, shards and machines. A build that was killed
    and goes on gives the same bytes on the same machine, since its shards and batches are cut the same way.
    The model is known by its name: after a change to what the name stands for, build a new index.

    Args:
        model: the name or folder of a model, as `AutoModelForCausalLM.from_pretrained` takes it. It is loaded
            once a process, when first used.
        batch_tokens: at most how many tokens a batch has, padding among them; a longer sample goes alone.
            Memory grows with it times the vocabulary.
        device: where the model runs, such as "cuda".
        max_length: the longest window in tokens, by default what the model takes.
        dtype: of the weights and activations, such as "bfloat16"; the loss itself is taken in float32.
        gguf_file: the file in `model` that holds the weights, where they are in GGUF.

    Raises:
        ValueError: an option is wrong; or, when scoring, a token id is not in the model's vocabulary, or
            `max_length` is more than the model takes.

    Examples:
        >>> import tempfile
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"vocab_size": 256, "n_embd": 8, "n_layer": 1, "n_head": 1, "initializer_range": 1e-4}
        >>> tiny = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tiny.save_pretrained(folder)
        ...     refloss(folder)(["to be", "or not to be", "!"]).round(1).tolist()  # untrained: ln 256
        [5.5, 5.5, 0.0]
    """

    shard_tokens: ClassVar[int] = 2**14

    model: str = attrs.field(default="")
    batch_tokens: int = attrs.field(default=4096, kw_only=True)
    device: str = attrs.field(default="cpu", kw_only=True)
    max_length: int | None = attrs.field(default=None, kw_only=True)
    dtype: str = attrs.field(default="float32", kw_only=True)
    gguf_file: str | None = attrs.field(default=None, kw_only=True)

    @model.validator
    def _check_model(self, _: object, model: object) -> None:
        if not isinstance(model, str) or not model:
            raise ValueError(
                f"model is {model!r}; expected the name or folder of a causal language model. refloss needs "
                'one, so give the metric itself, as in [refloss("gpt2")], not its name'
            )

    @batch_tokens.validator
    def _check_batch_tokens(self, _: object, tokens: object) -> None:
        if not isinstance(tokens, int) or tokens < 1:
            raise ValueError(f"batch_tokens is {tokens!r}; expected a whole number of at least 1")

    @max_length.validator
    def _check_max_length(self, _: object, length: object) -> None:
        if length is not None and (not isinstance(length, int) or length < 2):
            raise ValueError(f"max_length is {length!r}; expected a whole number of at least 2, or None")

    @dtype.validator
    def _check_dtype(self, _: object, dtype: object) -> None:
        if dtype not in ("float32", "bfloat16", "float16", "float64"):
            raise ValueError(
                f"dtype is {dtype!r}; expected float32, bfloat16, float16 or float64, as a string"
            )

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """The mean loss of each sample, in their order."""
        with _turn, torch.inference_mode():
            model = _load(self.model, self.gguf_file, self.device, self.dtype)
            config = model.config.get_text_config()
            _check_ids(shard.tokens, config.vocab_size, self.model)
            limit = _limit(self.max_length, getattr(config, "max_position_embeddings", None), self.model)
            windows = _windows(shard.offsets, limit)  # (W, 3): sample, start, stop
            losses = np.empty(len(windows))
            for batch in _batches(windows[:, 2] - windows[:, 1], self.batch_tokens):
                rows = [shard.tokens[start:stop].astype(np.int64) for _, start, stop in windows[batch]]
                losses[batch] = _losses(model, [torch.from_numpy(row) for row in rows])
        total = np.bincount(windows[:, 0], losses, minlength=len(shard))
        means: NDArray[np.float64] = total / np.maximum(np.diff(shard.offsets) - 1, 1)
        return means


@functools.cache
def _load(model: str, gguf_file: str | None, device: str, dtype: str) -> Any:
    from transformers import AutoModelForCausalLM

    options = {} if gguf_file is None else {"gguf_file": gguf_file}
    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype), **options)
    loaded.config.use_cache = False  # of keys and values, for text to come
    return loaded.to(device).eval()


def _check_ids(tokens: NDArray[Any], size: int, model: str) -> None:
    if tokens.size and not 0 <= (wrong := _furthest(tokens)) < size:
        raise ValueError(
            f"token id {wrong} is outside the vocabulary of {model}, which has {size} ids; "
            "tokenize the corpus with the tokenizer of this model"
        )


def _furthest(tokens: NDArray[Any]) -> int:
    low, high = int(tokens.min()), int(tokens.max())
    return low if low < 0 else high


def _limit(asked: int | None, taken: int | None, model: str) -> int | None:
    if asked is not None and taken is not None and asked > taken:
        raise ValueError(f"max_length is {asked}; {model} takes at most {taken} tokens")
    return asked or taken


def _windows(offsets: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """Sample, start and stop of each window, (W, 3). A window's first token is its neighbour's last."""
    limit = limit or int(np.diff(offsets).max(initial=2))
    found = [
        (sample, low, min(low + limit, stop))
        for sample, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))
        for low in range(start, stop - 1, limit - 1)
    ]
    return np.array(found, np.int64).reshape(-1, 3)


def _batches(lengths: NDArray[np.int64], most: int) -> Iterator[NDArray[np.int64]]:
    """Rows by falling length, so many that they and their padding are at most `most` tokens, or one."""
    rows = np.argsort(-lengths, kind="stable")
    first = 0
    while first < len(rows):
        count = max(1, most // int(lengths[rows[first]]))
        yield rows[first : first + count]
        first += count


def _losses(model: Any, rows: list[torch.Tensor]) -> NDArray[np.float64]:
    """The sum of the losses of each row's tokens but the first."""
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)  # (B, S)
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    mask = torch.arange(ids.shape[1], device=model.device) < lengths[:, None]
    logits = model(input_ids=ids, attention_mask=mask.long()).logits  # (B, S, V)
    sums = [
        cross_entropy(scores[: len(row) - 1].float(), own[1 : len(row)], reduction="none").double().sum()
        for scores, own, row in zip(logits, ids, rows, strict=True)  # by row: (S, V) at once is large enough
    ]
    return np.asarray(torch.stack(sums).cpu())
