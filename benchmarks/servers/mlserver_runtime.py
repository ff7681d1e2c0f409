"""The models as MLServer serves them: a custom runtime with its adaptive batching."""

from mlserver import MLModel, types
from mlserver.codecs import NumpyCodec
from onnx_session import OneThread


class OnnxRuntime(MLModel):  # type: ignore[misc]  # MLServer is not installed beside us
    """One ONNX file, given by the settings' `uri`."""

    async def load(self) -> bool:
        """Opens the session."""
        self._model = OneThread(self.settings.parameters.uri)
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        """One batch."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("y", self._model.run(x))
        return types.InferenceResponse(model_name=self.name, outputs=[output])
