"""Makes the golden bottleneck adapters with the `adapters` library (1.3.0, which needs transformers 4.57): run by hand, in two environments.

    python tests/hf/make_golden_adapters.py bases FOLDER      (with rgjax: writes the base models in a form that 4.57 reads)
    python tests/hf/make_golden_adapters.py adapters FOLDER   (with torch and `adapters`)
"""

import pathlib
import sys
import zlib

HERE = pathlib.Path(__file__).parent
BASES = ("gpt2", "llama", "t5", "bart")
STYLES = {"houlsby": "DoubleSeqBnConfig", "pfeiffer": "SeqBnConfig"}


def write_bases(folder: pathlib.Path) -> None:
    import dataclasses

    from rgjax.config import ModelConfig
    from rgjax.data.tokenizer import train_bpe
    from rgjax.hf import export
    from rgjax.hf.load import Pretrained
    from rgjax.models.build import ModelFactory
    from rgjax.parallel import mesh as mesh_lib

    tokenizer = train_bpe(["nothing"], 300, 0, {})
    for name in BASES:
        source = Pretrained.open(str(HERE / "golden" / name))
        config = dataclasses.replace(ModelConfig(), **source.options, embeddings=source.folder.config["vocab_size"])
        params = source.params(ModelFactory(config, config.embeddings), mesh_lib.make("data:1"))
        export.write(folder / name, params, config, tokenizer, family=source.family.name, token_ids=source.folder.token_ids())


def write_adapters(folder: pathlib.Path) -> None:
    import adapters
    import torch
    import transformers
    from safetensors.numpy import load_file, save_file

    for name in BASES:
        for style, config in STYLES.items():
            if name == "bart" and style == "pfeiffer":
                continue  # reads the sum before a layer norm that comes after: not computed by rgjax
            kind = transformers.AutoModelForSeq2SeqLM if name in ("t5", "bart") else transformers.AutoModelForCausalLM
            model = kind.from_pretrained(folder / name, dtype=torch.float32).eval()
            adapters.init(model)
            model.add_adapter(style, config=getattr(adapters, config)(reduction_factor=4))
            model.set_active_adapters(style)
            generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {style}".encode()))
            with torch.no_grad():
                for path, parameter in model.named_parameters():
                    if f"adapters.{style}." in path:
                        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
                given = {k: torch.tensor(v) for k, v in load_file(HERE / "golden" / name / "expected.safetensors").items() if k != "logits"}
                logits = model(**given).logits.numpy()
            target = HERE / "golden_adapters" / f"{name}_{style}"
            target.mkdir(parents=True, exist_ok=True)
            model.save_adapter(str(target), style, use_safetensors=True, with_head=False)
            save_file({"logits": logits}, target / "expected.safetensors")


if __name__ == "__main__":
    {"bases": write_bases, "adapters": write_adapters}[sys.argv[1]](pathlib.Path(sys.argv[2]))
