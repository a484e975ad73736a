package ort

import (
	"maps"
	"testing"

	"vigil/infer"
)

// The names are those of ONNX Runtime's documentation; a wrong one is refused only where the provider is there.
func TestProviderOptionsByTheirDocumentedNames(t *testing.T) {
	inputs := []infer.Tensor{{Name: "a", Shape: []int64{1, 3, 112, 112}}, {Name: "b", Shape: []int64{8}}}
	shapes := "a:1x3x112x112,b:8"
	for _, c := range []struct {
		p    Provider
		got  func(p *Provider) map[string]string
		want map[string]string
	}{
		{Provider{Name: CUDA}, (*Provider).cudaOptions,
			map[string]string{"device_id": "0", "arena_extend_strategy": "kSameAsRequested", "enable_cuda_graph": "0"}},
		{Provider{Name: CUDA, DeviceID: 2, MemoryLimitBytes: 5 << 30, Graphs: true, Options: map[string]string{"use_tf32": "0", "device_id": "3"}}, (*Provider).cudaOptions,
			map[string]string{"device_id": "3", "arena_extend_strategy": "kSameAsRequested", "enable_cuda_graph": "1", "gpu_mem_limit": "5368709120", "use_tf32": "0"}},
		{Provider{Name: TensorRT}, func(p *Provider) map[string]string { return p.tensorRTOptions(nil) },
			map[string]string{"device_id": "0", "trt_int8_enable": "1", "trt_fp16_enable": "0", "trt_cuda_graph_enable": "0", "trt_dla_enable": "0"}},
		{Provider{Name: TensorRT, FP16: true, Graphs: true, DLACore: 2, WorkspaceBytes: 1 << 20, BuilderLevel: 4, EngineCache: "/run/e", TimingCache: "/var/t"},
			func(p *Provider) map[string]string { return p.tensorRTOptions(inputs) },
			map[string]string{"device_id": "0", "trt_int8_enable": "1", "trt_fp16_enable": "1", "trt_cuda_graph_enable": "1", "trt_dla_enable": "1", "trt_dla_core": "1",
				"trt_max_workspace_size": "1048576", "trt_builder_optimization_level": "4", "trt_engine_cache_enable": "1", "trt_engine_cache_path": "/run/e",
				"trt_timing_cache_enable": "1", "trt_timing_cache_path": "/var/t", "trt_profile_min_shapes": shapes, "trt_profile_opt_shapes": shapes, "trt_profile_max_shapes": shapes}},
	} {
		if got := c.got(&c.p); !maps.Equal(got, c.want) {
			t.Errorf("%+v:\n got %v\nwant %v", c.p, got, c.want)
		}
	}
}
