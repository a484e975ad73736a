// Compiles only if the declarations of ours agree with ONNX Runtime's own header.
#include <onnxruntime_c_api.h>

#include "ops.h"

#define same(a, b) _Static_assert((size_t)(a) == (size_t)(b), #a " is not " #b)
#define at(index, function) same((index) * sizeof(void *), offsetof(OrtApi, function))
#define field(ours, theirs) same(offsetof(vigil_op, ours), offsetof(struct OrtCustomOp, theirs))

at(VIGIL_API_CREATE_STATUS, CreateStatus);
at(VIGIL_API_GET_ERROR_MESSAGE, GetErrorMessage);
at(VIGIL_API_CREATE_DOMAIN, CreateCustomOpDomain);
at(VIGIL_API_DOMAIN_ADD, CustomOpDomain_Add);
at(VIGIL_API_ADD_DOMAIN, AddCustomOpDomain);
at(VIGIL_API_GET_DATA, GetTensorMutableData);
at(VIGIL_API_GET_RANK, GetDimensionsCount);
at(VIGIL_API_GET_SIZES, GetDimensions);
at(VIGIL_API_GET_SHAPE, GetTensorTypeAndShape);
at(VIGIL_API_KERNEL_INPUT, KernelContext_GetInput);
at(VIGIL_API_KERNEL_OUTPUT, KernelContext_GetOutput);
at(VIGIL_API_CREATE_ENV, CreateEnv);
at(VIGIL_API_RELEASE_ENV, ReleaseEnv);
at(VIGIL_API_RELEASE_STATUS, ReleaseStatus);
same(VIGIL_LOG_FATAL, ORT_LOGGING_LEVEL_FATAL);
at(VIGIL_API_RELEASE_SHAPE, ReleaseTensorTypeAndShapeInfo);
at(VIGIL_API_RELEASE_DOMAIN, ReleaseCustomOpDomain);
at(VIGIL_API_GET_PROVIDERS, GetAvailableProviders);
at(VIGIL_API_RELEASE_PROVIDERS, ReleaseAvailableProviders);
at(VIGIL_API_RUN_BOUND, RunWithBinding);
at(VIGIL_API_GET_DEVICES, GetEpDevices);
at(VIGIL_API_APPEND_DEVICES, SessionOptionsAppendExecutionProvider_V2);
at(VIGIL_API_DEVICE_PROVIDER, EpDevice_EpName);

same(VIGIL_FLOAT32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
same(VIGIL_REQUIRED, INPUT_OUTPUT_REQUIRED);
same(VIGIL_MEMORY_DEFAULT, OrtMemTypeDefault);
same(VIGIL_INVALID_ARGUMENT, ORT_INVALID_ARGUMENT);
_Static_assert(VIGIL_ORT_API <= ORT_API_VERSION, "the header is older than what is asked for");

field(version, version);
field(create_kernel, CreateKernel);
field(get_name, GetName);
field(get_provider, GetExecutionProviderType);
field(get_input_type, GetInputType);
field(get_input_count, GetInputTypeCount);
field(get_output_type, GetOutputType);
field(get_output_count, GetOutputTypeCount);
field(compute, KernelCompute);
field(destroy, KernelDestroy);
field(get_input_characteristic, GetInputCharacteristic);
field(get_output_characteristic, GetOutputCharacteristic);
field(get_input_memory, GetInputMemoryType);
field(get_variadic_input_least, GetVariadicInputMinArity);
field(get_variadic_input_homogeneity, GetVariadicInputHomogeneity);
field(get_variadic_output_least, GetVariadicOutputMinArity);
field(get_variadic_output_homogeneity, GetVariadicOutputHomogeneity);
field(create_kernel_v2, CreateKernelV2);
field(compute_v2, KernelComputeV2);
same(sizeof(vigil_op), offsetof(struct OrtCustomOp, InferOutputShapeFn));  // what version VIGIL_ORT_API ends before
same(offsetof(OrtApiBase, GetApi), 0);
same(offsetof(OrtApiBase, GetVersionString), sizeof(void *));
same(sizeof(ONNXTensorElementDataType), sizeof(int));
same(sizeof(OrtErrorCode), sizeof(int));
same(sizeof(OrtMemType), sizeof(int));
same(sizeof(OrtCustomOpInputOutputCharacteristic), sizeof(int));
