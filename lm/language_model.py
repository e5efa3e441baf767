"""The interface of every recurrent language model to Hugging Face: forward, loss, generate.

A family defines its state, and how tokens become features of the head and events.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name
from transformers import GenerationMixin, PreTrainedModel
from transformers.utils import ModelOutput

State = tuple[tuple[Tensor, ...], ...]  # of each layer, (B, width) each


@dataclass
class Output(ModelOutput):
    """loss (mean nats per target), logits (B, T, V), state, share of events per place of spikes."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: State | None = None
    firing_rates: tuple[Tensor, ...] | None = None


class LanguageModel(PreTrainedModel, GenerationMixin):
    """A recurrent language model with the Hugging Face interface; the state goes in and comes out.

    A family adds `features`, `logits`, `mean_nll`, `initial_state`, `carried` and `event_sizes`,
    the widths of the event tensors that `features` returns.
    """

    main_input_name = "input_ids"
    _is_stateful = True
    graded_events = False  # whether events have values of their own, and are no spike counts

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state's tensors where they are those of the runtime's state, else ()."""
        return ()

    def features(
        self, input_ids: Tensor, state: State | None = None, event_costs: list[Tensor] | None = None
    ) -> tuple[Tensor, State, list[Tensor]]:
        """input_ids (B, T) -> features (T, B, e) for the head, state, events (T, B, H) each."""
        raise NotImplementedError

    def logits(self, features: Tensor) -> Tensor:
        """Features (T, B, e) -> logits (T, B, V) in the dtype of the weights."""
        raise NotImplementedError

    def forward(
        self,
        input_ids: Tensor,
        state: State | None = None,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool = True,
        **unused,
    ) -> Output:
        """input_ids, labels (B, T); labels are shifted here and -100 is skipped.

        attention_mask must be all ones: a recurrent state has no padding.  Raises ValueError.
        """
        if attention_mask is not None and not bool((attention_mask != 0).all()):
            raise ValueError("attention_mask has zeros: pad no recurrent batch, cut it instead")
        features, state, events = self.features(input_ids, state)
        kept = features[-logits_to_keep:] if logits_to_keep else features
        logits = self.logits(kept).transpose(0, 1)  # (B, T, V)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        rates = tuple((y.detach() != 0).float().mean() for y in events)
        return Output(loss=loss, logits=logits, state=state, firing_rates=rates)

    def prepare_inputs_for_generation(self, input_ids, state=None, **kwargs):
        """With a state, only the newest token is fed."""
        if state is not None:
            input_ids = input_ids[:, -1:]
        return {"input_ids": input_ids, "state": state, "logits_to_keep": 1}

    def _update_model_kwargs_for_generation(self, outputs, model_kwargs, *args, **kwargs):
        model_kwargs["state"] = outputs.state
        return model_kwargs

    def _dtype_of_products(self, weights_dtype: torch.dtype) -> torch.dtype:
        """config.compute_dtype, or float64 for a model whose own weights are float64."""
        compute_dtype: Any = getattr(torch, self.config.compute_dtype)
        return weights_dtype if weights_dtype == torch.float64 else compute_dtype
