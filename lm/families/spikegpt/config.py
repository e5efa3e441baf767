"""Config of a SpikeGPT language model: a Hugging Face config whose fields are checked at birth."""

from transformers import PreTrainedConfig as HFConfig

POSITIONS = ("residual", "projections", "none")


class Config(HFConfig):
    """Hyper-parameters of a SpikeGPT language model; every field is checked at birth.

    intermediate_size: units of a channel mix; None is 4 hidden_size.
    pre_ffn: block 0 has a second channel mix in place of its time mix.
    neuron_position: "residual", the published model, spikes of LIF units are added to the residual;
    "projections", every matrix reads signed spike counts, and nothing else spikes; "none", RWKV-4.
    binary_embedding: the embedding passes a Heaviside; None is true for "residual" alone.
    rescale: 0, or n for the arithmetic of the published inference script: what the branches of
    block i give is divided by 2^(i // n), and the residual is halved after every n blocks.
    lif_tau: time constant of LIF units, in tokens.  lif_threshold: theirs where a checkpoint has
    none; train_neurons: whether thresholds and input scales of LIF units are trained.
    threshold_scale: start of the trained scalars of "projections", threshold over mean|input|.
    dropout: of the residual after each block, in training.
    l2_wrap: strength of the gradient that holds the largest logit down, in training.
    initialization: "standard" (torch's, what the published code does) or "rwkv" (zeros for what
    feeds gates and the residual, orthogonal otherwise).
    carry: what crosses a chunk border in training and evaluation, "state" or "zero" (published).
    """

    model_type = "spikegpt"

    def __init__(
        self,
        vocab_size: int = 4096,
        hidden_size: int = 384,
        num_hidden_layers: int = 4,
        intermediate_size: int | None = None,
        pre_ffn: bool = False,
        binary_embedding: bool | None = None,
        rescale: int = 0,
        neuron_position: str = "residual",
        lif_tau: float = 2.0,
        lif_threshold: float = 1.0,
        train_neurons: bool = False,
        threshold_scale: float = 1.0,
        layer_norm_eps: float = 1e-5,
        dropout: float = 0.0,
        l2_wrap: float = 0.0,
        initialization: str = "standard",
        carry: str = "state",
        compute_dtype: str = "float32",
        **kwargs,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.intermediate_size = 4 * hidden_size if intermediate_size is None else intermediate_size
        self.pre_ffn = pre_ffn
        spikes_on_residual = neuron_position == "residual"
        self.binary_embedding = spikes_on_residual if binary_embedding is None else binary_embedding
        self.rescale = rescale
        self.neuron_position = neuron_position
        self.lif_tau = lif_tau
        self.lif_threshold = lif_threshold
        self.train_neurons = train_neurons
        self.threshold_scale = threshold_scale
        self.layer_norm_eps = layer_norm_eps
        self.dropout = dropout
        self.l2_wrap = l2_wrap
        self.initialization = initialization
        self.carry = carry
        self.compute_dtype = compute_dtype
        self._check()
        tied = kwargs.pop("tie_word_embeddings", False)
        super().__init__(tie_word_embeddings=tied, **kwargs)
        self.tie_word_embeddings = tied

    def _check(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lif_threshold", "threshold_scale", "layer_norm_eps"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("rescale", "l2_wrap"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.lif_tau >= 1.0:
            raise ValueError(f"lif_tau must be at least 1, got {self.lif_tau}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        for name, allowed in (
            ("neuron_position", POSITIONS),
            ("initialization", ("standard", "rwkv")),
            ("carry", ("state", "zero")),
            ("compute_dtype", ("float32", "bfloat16", "float64")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
