"""Torch's names of plain data, each with its module: a table, frozen at torch 2.13.

Nothing is here for its module's sake: the same modules hold `os`, `warnings` and functions that
run code. The classes are those that a whole model, an optimizer or a scheduler is pickled with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ckptool.analysis.scan.quantized_names import QUANTIZED_NAMES
from ckptool.pickling.nodes import Global
from ckptool.tensors.dtypes import DTYPES, STORAGE_DTYPES
from ckptool.tensors.rebuild import REBUILD_CALLS

__all__ = ["EARLIER_TORCH_NAMES", "TORCH_NAMES"]

_Table = tuple[tuple[str, str, str], ...]
"""What to say of them, their module, and the names in it."""

_MODULE: Final = "a module class of torch: plain data"
_QUANTIZED: Final = "a class of quantized torch modules: plain data"
_FUNCTION: Final = "an activation function of torch"
_OPTIMIZER: Final = "an optimizer class of torch: plain data"
_SCHEDULER: Final = "a class of torch that follows a schedule: plain data"
_TENSOR: Final = "a tensor type of torch: plain data"
_SETTING: Final = "a setting of tensors: plain data"
_SHARDS: Final = "a class of torch that describes parts of tensors: plain data"
_SCRIPT: Final = "a list of plain values in TorchScript"
_REBUILDS: Final = "rebuilds a tensor"
_DTYPE: Final = "a dtype of torch"
_STORAGE: Final = "a storage class of torch"

_SHORT_DTYPES: Final = "float double half long int short cfloat cdouble chalf"
_TENSORS: Final = (
    "BFloat16Tensor BoolTensor ByteTensor CharTensor DoubleTensor FloatTensor HalfTensor IntTensor "
    "LongTensor ShortTensor"
)
_SPARSE_TENSORS: Final = _TENSORS.replace("BoolTensor ", "")

_TABLE: Final[_Table] = (
    # Tensors
    (_TENSOR, "torch", f"Tensor {_TENSORS}"),
    (_TENSOR, "torch._tensor", "Tensor"),
    (_TENSOR, "torch.cuda", _TENSORS),
    (_TENSOR, "torch.sparse", _SPARSE_TENSORS),
    (_TENSOR, "torch.cuda.sparse", _SPARSE_TENSORS),
    (_TENSOR, "torch.nn.parameter", "Buffer Parameter UninitializedBuffer UninitializedParameter"),
    (_TENSOR, "torch.nested._internal.nested_tensor", "NestedTensor"),
    (_SETTING, "torch", "Size device dtype layout memory_format qscheme Generator finfo iinfo"),
    (_SETTING, "torch", "strided sparse_coo sparse_csr sparse_csc sparse_bsr sparse_bsc jagged"),
    (_SETTING, "torch", "contiguous_format channels_last channels_last_3d preserve_format"),
    (
        _SETTING,
        "torch",
        "per_tensor_affine per_channel_affine per_tensor_symmetric per_channel_symmetric "
        "per_channel_affine_float_qparams",
    ),
    (_SETTING, "torch.serialization", "_get_layout"),
    # Modules
    (_MODULE, "torch.nn.modules._functions", "CrossMapLRN2d SyncBatchNorm"),
    (
        _MODULE,
        "torch.nn.modules.activation",
        "CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid "
        "LogSoftmax Mish MultiheadAttention PReLU RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax "
        "Softmax2d Softmin Softplus Softshrink Softsign Tanh Tanhshrink Threshold",
    ),
    (_MODULE, "torch.nn.modules.adaptive", "AdaptiveLogSoftmaxWithLoss"),
    (
        _MODULE,
        "torch.nn.modules.batchnorm",
        "BatchNorm1d BatchNorm2d BatchNorm3d LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d "
        "SyncBatchNorm _BatchNorm _LazyNormBase _NormBase",
    ),
    (_MODULE, "torch.nn.modules.channelshuffle", "ChannelShuffle"),
    (
        _MODULE,
        "torch.nn.modules.container",
        "Container ModuleDict ModuleList ParameterDict ParameterList Sequential",
    ),
    (
        _MODULE,
        "torch.nn.modules.conv",
        "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d LazyConv1d "
        "LazyConv2d LazyConv3d LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d "
        "_ConvNd _ConvTransposeMixin _ConvTransposeNd",
    ),
    (_MODULE, "torch.nn.modules.distance", "CosineSimilarity PairwiseDistance"),
    (
        _MODULE,
        "torch.nn.modules.dropout",
        "AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout _DropoutNd",
    ),
    (_MODULE, "torch.nn.modules.flatten", "Flatten Unflatten"),
    (_MODULE, "torch.nn.modules.fold", "Fold Unfold"),
    (
        _MODULE,
        "torch.nn.modules.instancenorm",
        "InstanceNorm1d InstanceNorm2d InstanceNorm3d LazyInstanceNorm1d LazyInstanceNorm2d "
        "LazyInstanceNorm3d _InstanceNorm",
    ),
    (
        _MODULE,
        "torch.nn.modules.linear",
        "Bilinear Identity LazyLinear Linear NonDynamicallyQuantizableLinear",
    ),
    (_MODULE, "torch.nn.modules.linear_cross_entropy_options", "LinearCrossEntropyOptions"),
    (
        _MODULE,
        "torch.nn.modules.loss",
        "BCELoss BCEWithLogitsLoss CTCLoss CosineEmbeddingLoss CrossEntropyLoss GaussianNLLLoss "
        "HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss LinearCrossEntropyLoss MSELoss "
        "MarginRankingLoss MultiLabelMarginLoss MultiLabelSoftMarginLoss MultiMarginLoss NLLLoss "
        "NLLLoss2d PoissonNLLLoss SmoothL1Loss SoftMarginLoss TripletMarginLoss "
        "TripletMarginWithDistanceLoss _Loss _WeightedLoss",
    ),
    (_MODULE, "torch.nn.modules.module", "Module _WrappedHook"),
    (
        _MODULE,
        "torch.nn.modules.normalization",
        "CrossMapLRN2d GroupNorm LayerNorm LocalResponseNorm RMSNorm",
    ),
    (
        _MODULE,
        "torch.nn.modules.padding",
        "CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d "
        "ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d "
        "ReplicationPad3d ZeroPad1d ZeroPad2d ZeroPad3d _CircularPadNd _ConstantPadNd "
        "_ReflectionPadNd _ReplicationPadNd",
    ),
    (_MODULE, "torch.nn.modules.pixelshuffle", "PixelShuffle PixelUnshuffle"),
    (
        _MODULE,
        "torch.nn.modules.pooling",
        "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d "
        "AdaptiveMaxPool2d AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d "
        "FractionalMaxPool3d LPPool1d LPPool2d LPPool3d MaxPool1d MaxPool2d MaxPool3d "
        "MaxUnpool1d MaxUnpool2d MaxUnpool3d _AdaptiveAvgPoolNd _AdaptiveMaxPoolNd _AvgPoolNd "
        "_LPPoolNd _MaxPoolNd _MaxUnpoolNd",
    ),
    (_MODULE, "torch.nn.modules.rnn", "GRU GRUCell LSTM LSTMCell RNN RNNBase RNNCell RNNCellBase"),
    (_MODULE, "torch.nn.modules.sparse", "Embedding EmbeddingBag"),
    (
        _MODULE,
        "torch.nn.modules.transformer",
        "Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder "
        "TransformerEncoderLayer",
    ),
    (_MODULE, "torch.nn.modules.upsampling", "Upsample UpsamplingBilinear2d UpsamplingNearest2d"),
    (_MODULE, "torch.nn.parallel.data_parallel", "DataParallel"),
    (
        _MODULE,
        "torch.nn.parallel.distributed",
        "DistributedDataParallel _BufferCommHook _BufferCommHookLocation _MixedPrecision",
    ),
    # What reparametrizations and pruning leave in a module
    (_MODULE, "torch.nn.utils.parametrizations", "_OrthMaps _Orthogonal _SpectralNorm _WeightNorm"),
    (_MODULE, "torch.nn.utils.parametrize", "ParametrizationList"),
    (
        _MODULE,
        "torch.nn.utils.prune",
        "CustomFromMask Identity L1Unstructured LnStructured PruningContainer RandomStructured "
        "RandomUnstructured",
    ),
    (_MODULE, "torch.nn.utils.rnn", "PackedSequence PackedSequence_"),
    (
        _MODULE,
        "torch.nn.utils.spectral_norm",
        "SpectralNorm SpectralNormLoadStateDictPreHook SpectralNormStateDictHook",
    ),
    (_MODULE, "torch.nn.utils.weight_norm", "WeightNorm"),
    (_MODULE, "torch.nn.backends.thnn", "_get_thnn_function_backend"),
    # Activations that modules keep as functions, by the modules that pickle finds them in
    (
        _FUNCTION,
        "torch.nn.functional",
        "_threshold celu elu glu hardsigmoid hardswish hardtanh leaky_relu log_softmax mish relu "
        "relu6 rrelu selu sigmoid silu softmax softmin softsign tanh tanhshrink",
    ),
    (_FUNCTION, "torch._C._nn", "gelu log_sigmoid softplus softshrink"),
    *((_QUANTIZED, module, names) for module, names in QUANTIZED_NAMES),
    # Optimizers and schedules
    (_OPTIMIZER, "torch.optim", "Adafactor Muon"),
    (_OPTIMIZER, "torch.optim.adadelta", "Adadelta"),
    (_OPTIMIZER, "torch.optim.adagrad", "Adagrad"),
    (_OPTIMIZER, "torch.optim.adam", "Adam"),
    (_OPTIMIZER, "torch.optim.adamax", "Adamax"),
    (_OPTIMIZER, "torch.optim.adamw", "AdamW"),
    (_OPTIMIZER, "torch.optim.asgd", "ASGD"),
    (_OPTIMIZER, "torch.optim.lbfgs", "LBFGS"),
    (_OPTIMIZER, "torch.optim.nadam", "NAdam"),
    (_OPTIMIZER, "torch.optim.optimizer", "Optimizer _RequiredParameter"),
    (_OPTIMIZER, "torch.optim.radam", "RAdam"),
    (_OPTIMIZER, "torch.optim.rmsprop", "RMSprop"),
    (_OPTIMIZER, "torch.optim.rprop", "Rprop"),
    (_OPTIMIZER, "torch.optim.sgd", "SGD"),
    (_OPTIMIZER, "torch.optim.sparse_adam", "SparseAdam"),
    (
        _SCHEDULER,
        "torch.optim.lr_scheduler",
        "ChainedScheduler ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR "
        "ExponentialLR LRScheduler LambdaLR LinearLR MultiStepLR MultiplicativeLR OneCycleLR "
        "PolynomialLR ReduceLROnPlateau SequentialLR StepLR _LRScheduler _SchedulePhase",
    ),
    (_SCHEDULER, "torch.optim.swa_utils", "AveragedModel SWALR"),
    # Sharded tensors, and the file `.metadata` of a distributed checkpoint
    (_SHARDS, "torch.distributed.tensor", "DTensor"),
    (_SHARDS, "torch.distributed.tensor._dtensor_spec", "DTensorSpec ShardOrderEntry TensorMeta"),
    (
        _SHARDS,
        "torch.distributed.tensor.placement_types",
        "Partial Placement Replicate Shard _MaskPartial _StridedShard",
    ),
    (_SHARDS, "torch.distributed.device_mesh", "DeviceMesh"),
    (_SHARDS, "torch.distributed._mesh_layout", "_FlatLayout _MeshLayout"),
    (
        _SHARDS,
        "torch.distributed.checkpoint.metadata",
        "BytesStorageMetadata ChunkStorageMetadata Metadata MetadataIndex StorageMeta "
        "TensorProperties TensorStorageMetadata _MEM_FORMAT_ENCODING",
    ),
    (_SHARDS, "torch.distributed.checkpoint.filesystem", "_StorageInfo _StoragePrefix"),
    # torch/csrc/jit/serialization/pickler.cpp
    (
        _SCRIPT,
        "torch.jit._pickle",
        "build_boollist build_doublelist build_intlist build_tensorlist",
    ),
    (_SCRIPT, "torch.jit._pickle", "build_tensor_from_id restore_type_tag"),
)

_EARLIER: Final[_Table] = (
    (_MODULE, "torch.nn.backends.thnn", "THNNFunctionBackend"),
    (_MODULE, "torch.nn.modules.linear", "_LinearWithBias"),
)


def _globals(table: _Table) -> Iterator[tuple[Global, str]]:
    for reason, module, names in table:
        for name in names.split():
            yield Global(module, name), reason


def _before_ao(table: _Table) -> Iterator[tuple[Global, str]]:
    """Quantized modules by where they were before `torch.ao`."""
    for reference, reason in _globals(table):
        if reference.module.startswith("torch.ao."):
            yield Global(reference.module.replace(".ao.", ".", 1), reference.name), reason


def _calls() -> Iterator[tuple[Global, str]]:
    for callee in REBUILD_CALLS:
        if isinstance(callee, Global):
            yield callee, _REBUILDS


def _dtypes() -> Iterator[tuple[Global, str]]:
    for name in (*DTYPES, *_SHORT_DTYPES.split()):
        yield Global("torch", name), _DTYPE


def _storages() -> Iterator[tuple[Global, str]]:
    for module in ("torch", "torch.cuda", "torch.storage"):
        for name in (*STORAGE_DTYPES, "TypedStorage"):
            yield Global(module, name), _STORAGE


TORCH_NAMES: Final[Mapping[Global, str]] = dict(
    (*_globals(_TABLE), *_calls(), *_dtypes(), *_storages())
)
"""What each is, in words."""

EARLIER_TORCH_NAMES: Final[Mapping[Global, str]] = dict((*_globals(_EARLIER), *_before_ao(_TABLE)))
"""The same of torch before 2.13, which files still name."""
