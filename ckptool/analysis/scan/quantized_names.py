"""Classes of quantized torch modules, with their modules in torch 2.13: a table."""

from __future__ import annotations

from typing import Final

__all__ = ["QUANTIZED_NAMES"]

QUANTIZED_NAMES: Final = (
    (
        "torch.ao.nn.quantized.modules.conv",
        "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
    ),
    ("torch.ao.nn.quantized.modules.linear", "Linear LinearPackedParams"),
    ("torch.ao.nn.quantized.modules", "DeQuantize Quantize"),
    (
        "torch.ao.nn.quantized.modules.activation",
        "ELU Hardswish LeakyReLU MultiheadAttention PReLU ReLU6 Sigmoid Softmax",
    ),
    ("torch.ao.nn.quantized.modules.batchnorm", "BatchNorm2d BatchNorm3d"),
    ("torch.ao.nn.quantized.modules.dropout", "Dropout"),
    (
        "torch.ao.nn.quantized.modules.embedding_ops",
        "Embedding EmbeddingBag EmbeddingPackedParams",
    ),
    (
        "torch.ao.nn.quantized.modules.functional_modules",
        "FXFloatFunctional FloatFunctional QFunctional",
    ),
    (
        "torch.ao.nn.quantized.modules.normalization",
        "GroupNorm InstanceNorm1d InstanceNorm2d InstanceNorm3d LayerNorm",
    ),
    ("torch.ao.nn.quantized.dynamic.modules.linear", "Linear"),
    (
        "torch.ao.nn.quantized.dynamic.modules.rnn",
        "GRU GRUCell LSTM LSTMCell PackedParameter RNNCell",
    ),
    ("torch.ao.nn.qat.modules.conv", "Conv1d Conv2d Conv3d"),
    ("torch.ao.nn.qat.modules.embedding_ops", "Embedding EmbeddingBag"),
    ("torch.ao.nn.qat.modules.linear", "Linear"),
    (
        "torch.ao.nn.intrinsic.modules.fused",
        "BNReLU2d BNReLU3d ConvAdd2d ConvAddReLU2d ConvBn1d ConvBn2d ConvBn3d ConvBnReLU1d "
        "ConvBnReLU2d ConvBnReLU3d ConvReLU1d ConvReLU2d ConvReLU3d LinearBn1d LinearLeakyReLU "
        "LinearReLU LinearTanh",
    ),
    (
        "torch.ao.nn.intrinsic.qat.modules.conv_fused",
        "ConvBn1d ConvBn2d ConvBn3d ConvBnReLU1d ConvBnReLU2d ConvBnReLU3d ConvReLU1d ConvReLU2d "
        "ConvReLU3d",
    ),
    ("torch.ao.nn.intrinsic.qat.modules.linear_relu", "LinearReLU"),
    (
        "torch.ao.nn.intrinsic.quantized.modules.conv_relu",
        "ConvReLU1d ConvReLU2d ConvReLU3d",
    ),
    (
        "torch.ao.nn.intrinsic.quantized.modules.linear_relu",
        "LinearLeakyReLU LinearReLU LinearTanh",
    ),
    (
        "torch.ao.quantization.fake_quantize",
        "FakeQuantize FixedQParamsFakeQuantize FusedMovingAvgObsFakeQuantize",
    ),
    (
        "torch.ao.quantization.observer",
        "FixedQParamsObserver HistogramObserver MinMaxObserver MovingAverageMinMaxObserver "
        "MovingAveragePerChannelMinMaxObserver NoopObserver PerChannelMinMaxObserver "
        "PlaceholderObserver RecordingObserver ReuseInputObserver _PartialWrapper",
    ),
    ("torch.ao.quantization.qconfig", "QConfig QConfigDynamic"),
    ("torch.ao.quantization.stubs", "DeQuantStub QuantStub QuantWrapper"),
)
"""Each module, and the names in it."""
