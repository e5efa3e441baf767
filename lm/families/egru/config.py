"""Config of an EGRU language model: a Hugging Face config whose fields are checked at birth."""

from transformers import PreTrainedConfig as HFConfig


class Config(HFConfig):
    """Hyper-parameters of an EGRU language model; every field is checked at birth.

    hidden_sizes: units per layer; the last equals embedding_size in a tied model without
    projection.  projection: a linear map from the last layer to embedding_size before the head.
    pseudo_derivative_damp, _support: height and inverse half-width of the surrogate gradient;
    _floor: least event value it is multiplied by, None the cell's own as published (see
    `spiketrain.lm.spikes.graded`).
    train_thresholds: whether theta is a trained parameter; it starts from Beta(a, 3) with mean
    threshold_mean.  initial_preactivation: standard deviation that input products start with;
    None keeps the published Xavier values, which small models are slow to leave.
    initial_update_bias: start of the update gate's bias; above 0, cells remember longer.
    dropout_*: probabilities in training; `dropout_shared` names the axis that one variational mask
    is shared over, "batch" (published code) or "time" (AWD-LSTM).
    carry: what crosses a chunk border in training and evaluation, "state" (cell and output) or
    "output" (published code: the cell restarts at zero).
    """

    model_type = "egru"

    def __init__(
        self,
        vocab_size: int = 4096,
        embedding_size: int = 384,
        hidden_sizes: tuple[int, ...] | list[int] = (896, 384),
        projection: bool = False,
        tie_word_embeddings: bool = True,
        threshold_mean: float = 0.01,
        train_thresholds: bool = False,
        initial_preactivation: float | None = None,
        initial_update_bias: float = 0.0,
        pseudo_derivative_damp: float = 1.0,
        pseudo_derivative_support: float = 1.0,
        pseudo_derivative_floor: float | None = None,
        zoneout: float = 0.0,
        dropout_words: float = 0.0,
        dropout_embedding: float = 0.0,
        dropout_forward: float = 0.0,
        dropout_connect: float = 0.0,
        dropout_decoder: float = 0.0,
        dropout_shared: str = "batch",
        carry: str = "state",
        compute_dtype: str = "float32",
        **kwargs,
    ) -> None:
        self.vocab_size = vocab_size
        self.embedding_size = embedding_size
        self.hidden_sizes = list(hidden_sizes)
        self.projection = projection
        self.threshold_mean = threshold_mean
        self.train_thresholds = train_thresholds
        self.initial_preactivation = initial_preactivation
        self.initial_update_bias = initial_update_bias
        self.pseudo_derivative_damp = pseudo_derivative_damp
        self.pseudo_derivative_support = pseudo_derivative_support
        self.pseudo_derivative_floor = pseudo_derivative_floor
        self.zoneout = zoneout
        self.dropout_words = dropout_words
        self.dropout_embedding = dropout_embedding
        self.dropout_forward = dropout_forward
        self.dropout_connect = dropout_connect
        self.dropout_decoder = dropout_decoder
        self.dropout_shared = dropout_shared
        self.carry = carry
        self.compute_dtype = compute_dtype
        self.hidden_size = embedding_size
        self.num_hidden_layers = len(self.hidden_sizes)
        self._check(tie_word_embeddings)
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)
        self.tie_word_embeddings = tie_word_embeddings

    def _check(self, tied: bool) -> None:
        for name in ("vocab_size", "embedding_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ValueError(f"hidden_sizes must be positive, not empty, got {self.hidden_sizes}")
        if tied and not self.projection and self.hidden_sizes[-1] != self.embedding_size:
            raise ValueError(
                f"hidden_sizes[-1] must equal embedding_size {self.embedding_size} "
                f"in a tied model without projection, got {self.hidden_sizes[-1]}"
            )
        for name, value in vars(self).items():
            share = (name.startswith("dropout_") and name != "dropout_shared") or name == "zoneout"
            if share and not 0.0 <= value < 1.0:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        if not 0.0 < self.threshold_mean < 1.0:
            raise ValueError(f"threshold_mean must be in (0, 1), got {self.threshold_mean}")
        for name, allowed in (
            ("dropout_shared", ("batch", "time")),
            ("carry", ("state", "output")),
            ("compute_dtype", ("float32", "bfloat16", "float64")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
