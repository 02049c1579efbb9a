"""BERT, with its head at the masked places alone, and what that costs."""

from typing import Any

import attrs
import torch
from torch import nn

import dataeff as de
from dataeff.clock import Processed
from tests.benchmarks.study._bert_masks import Ids


def bert(ids: Ids, *, width: int, heads: int, layers: int, length: int, seed: int) -> Any:
    """One of transformers', its weights by the seed."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(ids),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=length,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=ids.padding,
        attn_implementation="sdpa",
    )
    return BertForMaskedLM(config).train()


class Masked(nn.Module):
    """BERT with its head at some places alone."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        """(B, S) ids, and K flat places among them, to (K, V) logits."""
        states = self.bert.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.bert.cls(states.flatten(0, 1)[places])


@attrs.define
class WithHead:
    """The FLOPs of a step: those of a cost without the head, and of the head as often as it was asked."""

    cost: de.flops.Cost
    head: int
    """FLOPs at one place."""
    places: int = 0
    """Of the step."""

    def __call__(self, processed: Processed) -> int:
        return self.cost(processed) + self.head * self.places
