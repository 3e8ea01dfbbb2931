"""GPT-2 of another project, and what our decoder-only model calls its parameters."""

from transformers import GPT2Config, GPT2LMHeadModel

BLOCK = {  # of ours GPT-2's, whose matrices are (in, out)
    "norm1": "ln_1",
    "attention.in_proj": "attn.c_attn",
    "attention.out_proj": "attn.c_proj",
    "norm2": "ln_2",
    "linear1": "mlp.c_fc",
    "linear2": "mlp.c_proj",
}
TOP = {
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}


def gpt2(shape, dropout=0.0, positions=None):
    """Return GPT-2 of our shape; ``positions`` are 2T - 1 if not given."""
    config = GPT2Config(
        vocab_size=shape.vocab_size,
        n_positions=positions or 2 * shape.seq_len - 1,
        n_embd=shape.hidden_size,
        n_layer=shape.num_layers,
        n_head=shape.num_heads,
        n_inner=shape.d_ff,
        activation_function="gelu_new" if shape.activation == "gelu" else "relu",
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        resid_pdrop=dropout,
        tie_word_embeddings=shape.head == "tied",
        bos_token_id=None,
        eos_token_id=None,
    )
    config._attn_implementation = "eager"
    return GPT2LMHeadModel(config)


def as_ours(name, tensors):
    """Return what GPT-2 has by a name of ours, in our layout."""
    owner, _, kind = name.rpartition(".")
    if owner.startswith("layers."):
        _, layer, part = owner.split(".", 2)
        tensor = tensors[f"transformer.h.{layer}.{BLOCK[part]}.{kind}"]
        return tensor.T if tensor.ndim == 2 else tensor
    return tensors[f"{TOP[owner]}.{kind}"]


def named(model):
    """Return the parameters by name."""
    return dict(model.named_parameters())
