"""Makes the models of this ensemble, trained on Python's own standard library: is a line prose or code?

    python examples/ensemble/make.py FOLDER

FOLDER then holds the packages tokenise, embed, classify and prose, the ensemble. Needs the extras demo and
worker-tokenizer; takes some seconds.
"""

import ast
import random
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

VOCABULARY, DIMENSIONS, OPSET = 2000, 64, 17


def lines(label: str) -> Iterator[str]:
    """Lines of docstrings, or statements."""
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-h]*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if label == "code" and isinstance(node, ast.Assign | ast.AugAssign | ast.Return | ast.Raise | ast.Assert):
                yield ast.unparse(node).splitlines()[0][:120]
            elif label == "prose" and isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield from (line for line in (ast.get_docstring(node) or "").splitlines() if len(line.split()) > 4)


def make_tokenizer(folder: Path, texts: list[str]) -> Tokenizer:
    """Byte pairs."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["[PAD]", "[UNK]"]))
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "model.yaml").write_text("runtime: tokenizer\ntokenizer: {max_length: 128, truncation: true}\n")
    return tokenizer


def make_embedding(folder: Path) -> Any:
    """input_ids, attention_mask INT64 [N, length] → vector FP32 [N, 64]: the mean of the tokens' random vectors."""
    table = np.random.default_rng(0).standard_normal((VOCABULARY, DIMENSIONS)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
            helper.make_node("Cast", ["attention_mask"], ["kept"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["kept", "last"], ["weights"]),
            helper.make_node("Mul", ["vectors", "weights"], ["weighed"]),
            helper.make_node("ReduceSum", ["weighed", "tokens"], ["sum"], keepdims=0),
            helper.make_node("ReduceSum", ["kept", "tokens"], ["length"], keepdims=1),
            helper.make_node("Max", ["length", "one"], ["divisor"]),
            helper.make_node("Div", ["sum", "divisor"], ["vector"]),
        ],
        "embed",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "length"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["N", DIMENSIONS])],
        [
            helper.make_tensor("table", TensorProto.FLOAT, table.shape, table.tobytes(), raw=True),
            helper.make_tensor("last", TensorProto.INT64, [1], [2]),
            helper.make_tensor("tokens", TensorProto.INT64, [1], [1]),
            helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
        ],
    )
    folder.mkdir(parents=True)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.save(made, str(folder / "model.onnx"))
    return table


def make_classifier(folder: Path, tokenizer: Tokenizer, table: Any, texts: dict[str, str]) -> float:
    """vector → label BYTES [N], probabilities FP32 [N, 2]. Returns the share of held-out lines that it gets right."""
    ids = [encoded.ids for encoded in tokenizer.encode_batch(list(texts))]
    vectors = np.stack([table[row].mean(0) if row else np.zeros(DIMENSIONS, np.float32) for row in ids])
    labels, half = np.array(list(texts.values())), len(ids) // 2
    classifier = LogisticRegression(max_iter=1000).fit(vectors[:half], labels[:half])
    shape = [("X", FloatTensorType([None, DIMENSIONS]))]
    made = to_onnx(classifier, initial_types=shape, options={"zipmap": False}, target_opset=OPSET)
    folder.mkdir(parents=True)
    onnx.save(made, str(folder / "model.onnx"))
    return float(classifier.score(vectors[half:], labels[half:]))


def main(folder: Path) -> None:
    """All four packages."""
    found = {line: label for label in ("code", "prose") for line in lines(label)}
    texts = dict(random.Random(0).sample(sorted(found.items()), len(found)))
    tokenizer = make_tokenizer(folder / "tokenise", list(texts))
    table = make_embedding(folder / "embed")
    right = make_classifier(folder / "classify", tokenizer, table, texts)
    (folder / "prose").mkdir()
    shutil.copy(Path(__file__).with_name("model.yaml"), folder / "prose")
    print(f"{len(texts)} lines; the classifier gets {right:.1%} of those right that it was not trained on")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
