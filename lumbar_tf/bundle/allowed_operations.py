"""Operations that the graph of a bundle may contain.

The list holds computations on tensors, control flow and variables: those of the graders of every backbone,
the localizers, the stacker and record parsing, with their gradients for saliency, as TensorFlow 2.20 traces
them, and close relatives that other releases use. Operations that read or write files, print, call Python,
open connections, build datasets or share state with other processes are absent. `servable_check` refuses a
graph with any other operation, at export and before a bundle is loaded.
"""

_CONTROL_FLOW = """
    Assert Case If NoOp PartitionedCall Placeholder PreventGradient StatefulPartitionedCall StatelessCase
    StatelessIf StatelessWhile StopGradient TensorListConcatV2 TensorListElementShape TensorListFromTensor
    TensorListGather TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack
    TensorListReserve TensorListResize TensorListScatterV2 TensorListSetItem TensorListSplit
    TensorListStack While
"""
_VARIABLES = "AssignVariableOp DisableCopyOnRead ReadVariableOp VarHandleOp VarIsInitializedOp VariableShape"
_ARRAYS = """
    BroadcastArgs BroadcastGradientArgs BroadcastTo ConcatOffset ConcatV2 Const DepthToSpace
    DynamicPartition DynamicStitch EnsureShape ExpandDims Fill GatherNd GatherV2 Identity IdentityN
    InvertPermutation LinSpace MatrixBandPart MatrixDiagPartV3 MatrixDiagV3 MirrorPad OneHot OnesLike Pack
    Pad PadV2 ParallelDynamicStitch RaggedTensorToTensor Range Rank Reshape ReverseV2 Roll ScatterNd
    Select SelectV2 Shape ShapeN Size Slice SpaceToDepth Split SplitV Squeeze StridedSlice
    StridedSliceGrad TensorScatterAdd TensorScatterUpdate Tile TileGrad TopKV2 Transpose Unique UniqueV2
    Unpack Where ZerosLike
"""
_MATHEMATICS = """
    Abs Acos AddN AddV2 All Any ArgMax ArgMin Asin Atan Atan2 BatchMatMulV2 BatchMatMulV3 Bincount
    BitwiseAnd BitwiseOr BitwiseXor Bucketize Cast Ceil ClipByValue Cos Cosh Cross Cumprod Cumsum
    CumulativeLogsumexp DenseBincount Div DivNoNan Einsum Equal Erf Erfc Erfinv Exp Expm1 Floor FloorDiv
    FloorMod Greater GreaterEqual Inv Invert IsFinite IsInf IsNan L2Loss LeftShift Less LessEqual Log
    Log1p LogicalAnd LogicalNot LogicalOr LowerBound MatMul Max Maximum Mean Min Minimum Mod Mul MulNoNan
    Neg NotEqual Pow Prod RealDiv Reciprocal ReciprocalGrad RightShift Rint Round Rsqrt RsqrtGrad
    SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum Sigmoid SigmoidGrad Sign Sin Sinh Sqrt
    SqrtGrad Square SquaredDifference Sub Sum Tan Tanh TanhGrad UnsortedSegmentMax UnsortedSegmentMin
    UnsortedSegmentProd UnsortedSegmentSum Xdivy Xlogy
"""
_NETWORKS = """
    AvgPool AvgPoolGrad BiasAdd BiasAddGrad Conv2D Conv2DBackpropFilter Conv2DBackpropInput
    DepthwiseConv2dNative DepthwiseConv2dNativeBackpropFilter DepthwiseConv2dNativeBackpropInput Elu
    EluGrad FusedBatchNormGradV3 FusedBatchNormV3 LeakyRelu LeakyReluGrad LogSoftmax MaxPool MaxPoolGrad
    MaxPoolGradGrad MirrorPadGrad Relu Relu6 Relu6Grad ReluGrad Selu SeluGrad Softmax Softplus
    SoftplusGrad Softsign SoftsignGrad
"""
_IMAGES = """
    ImageProjectiveTransformV3 ResizeBicubic ResizeBicubicGrad ResizeBilinear ResizeBilinearGrad
    ResizeNearestNeighbor ResizeNearestNeighborGrad
"""
_RECORDS = """
    DecodePng DecodeRaw ParseExampleV2 ReduceJoin ShardedFilename StaticRegexFullMatch StringJoin
    StringLength StringSplitV2 Substr
"""
ALLOWED_OPERATIONS = frozenset(
    " ".join((_CONTROL_FLOW, _VARIABLES, _ARRAYS, _MATHEMATICS, _NETWORKS, _IMAGES, _RECORDS)).split()
)
#: Write the variables, in the function that TensorFlow adds to every SavedModel for this purpose.
SAVING_OPERATIONS = frozenset({"MergeV2Checkpoints", "SaveV2"})
#: Read the variables, likewise.
RESTORING_OPERATIONS = frozenset({"RestoreV2"})
