"""The runtime of a known service time."""

from pathlib import Path

import numpy as np
import pytest

from headrace.packages.reading import PackageError, read_package
from services.worker.runtime import load_model
from tests.support.identity import identity


def test_what_goes_in_comes_out_and_the_package_says_how_long_it_takes(tmp_path: Path) -> None:
    package = read_package(identity(tmp_path, batch_ms=0, request_ms=1.5, max_batch_size=4))
    assert (package.spec.runtime, package.spec.batching.max_batch_size) == ("identity", 4)
    assert dict(package.spec.parameters) == {"batch_ms": "0", "request_ms": "1.5"}
    model = load_model(tmp_path, package.spec, 1)
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(model.run({"x": x})["y"], x)


@pytest.mark.parametrize("delay", ["soon", "-1", "1e9", "nan"])
def test_a_delay_that_is_none_is_refused_by_its_line(tmp_path: Path, delay: str) -> None:
    (tmp_path / "model.yaml").write_text(f'runtime: identity\nparameters:\n  batch_ms: "{delay}"\n')
    with pytest.raises(PackageError, match=r"line 3, parameters\.batch_ms: .*expected milliseconds"):
        read_package(tmp_path)
