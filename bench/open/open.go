// Package open names the public models that benchmarks run on, and makes inputs for them from the public pictures.
//
// It promises that the same arguments give the same inputs everywhere, so that peers can be measured on the same work. It
// reads the data folder and nothing else, and owns nothing.
package open

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"vigil/infer"
	"vigil/kernels"
	"vigil/sensors"
	"vigil/sensors/picture"
)

// Model is one public model with the tensors and pictures that it is used with.
type Model struct {
	File     string
	Input    infer.Tensor
	Outputs  []infer.Tensor
	Norm     kernels.Norm
	Pictures string // folder below faces/
}

func tensor(name string, shape ...int64) infer.Tensor {
	return infer.Tensor{Name: name, Type: "float32", Shape: shape}
}

// yunet are the outputs of YuNet for a square input.
func yunet(side int64) (out []infer.Tensor) {
	for _, o := range []struct {
		name  string
		width int64
	}{{"cls", 1}, {"obj", 1}, {"bbox", 4}, {"kps", 10}} {
		for _, stride := range []int64{8, 16, 32} {
			out = append(out, tensor(fmt.Sprintf("%s_%d", o.name, stride), 1, side/stride*(side/stride), o.width))
		}
	}
	return out
}

func norm(bgr bool, mean, std [3]float32) kernels.Norm {
	return kernels.Norm{BGR: bgr, Mean: mean, InvStd: [3]float32{1 / std[0], 1 / std[1], 1 / std[2]}}
}

// Embedder is the model that the comparison with the peer is made on.
const Embedder = "mobilefacenet_foamliu.onnx"

// Models are all public models, pre-processed as their authors do (see SOURCES.md of the data folder).
func Models() []Model {
	one := [3]float32{1, 1, 1}
	bgr := norm(true, [3]float32{}, one)
	spoof := []infer.Tensor{tensor("logits", 1, 3)}
	return []Model{
		{Embedder, tensor("input0", 1, 3, 112, 112), []infer.Tensor{tensor("output0", 1, 128)}, norm(false, [3]float32{123.675, 116.28, 103.53}, [3]float32{58.395, 57.12, 57.375}), "lfw_aligned112"},
		{"yunet_s_320_320.onnx", tensor("input", 1, 3, 320, 320), yunet(320), bgr, "lfw"},
		{"yunet_s_dynamic.onnx", tensor("input", 1, 3, 320, 320), yunet(320), bgr, "lfw"},
		{"face_detection_yunet_2023mar.onnx", tensor("input", 1, 3, 640, 640), yunet(640), bgr, "lfw"},
		{"ultraface_version-RFB-320.onnx", tensor("input", 1, 3, 240, 320), []infer.Tensor{tensor("scores", 1, 4420, 2), tensor("boxes", 1, 4420, 4)},
			norm(false, [3]float32{127, 127, 127}, [3]float32{128, 128, 128}), "lfw"},
		{"minifasnet_v2_2.7_80x80.onnx", tensor("input", 1, 3, 80, 80), spoof, bgr, "lfw"},
		{"minifasnet_v1se_4.0_80x80.onnx", tensor("input", 1, 3, 80, 80), spoof, bgr, "lfw"},
		{"antispoof_minifasv2se_128_fp32.onnx", tensor("input", 1, 3, 128, 128), []infer.Tensor{tensor("output", 1, 2)}, norm(false, [3]float32{}, [3]float32{255, 255, 255}), "lfw_aligned112"},
	}
}

// Data is the folder of models and pictures: VIGIL_DATA, or ../shared/data.
func Data() string {
	if dir := os.Getenv("VIGIL_DATA"); dir != "" {
		return dir
	}
	return filepath.Join("..", "shared", "data")
}

// Read gives the model's bytes.
func (m Model) Read() ([]byte, error) { return os.ReadFile(filepath.Join(Data(), "models", m.File)) }

// Samples are pictures as inputs of a model. They implement quant.Samples.
type Samples struct {
	Model Model
	Paths []string
}

// Take picks n pictures evenly spread over the model's folder, the first one from `from` on.
func (m Model) Take(n, from int) (Samples, error) {
	all, err := filepath.Glob(filepath.Join(Data(), "faces", m.Pictures, "*", "*.jpg"))
	if err != nil {
		return Samples{}, err
	}
	slices.Sort(all)
	if len(all) < n+from {
		return Samples{}, fmt.Errorf("%s holds %d pictures, %d are needed: point VIGIL_DATA to the folder of models and pictures", filepath.Join(Data(), "faces", m.Pictures), len(all), n+from)
	}
	s := Samples{Model: m}
	for i := range n {
		s.Paths = append(s.Paths, all[from+i*(len(all)-from)/n])
	}
	return s, nil
}

// Len implements quant.Samples.
func (s Samples) Len() int { return len(s.Paths) }

// Fill implements quant.Samples.
func (s Samples) Fill(ctx context.Context, i int, input []float32) error {
	return s.Model.Fill(ctx, s.Paths[i], input)
}

// Fill scales a picture into the model's input.
func (m Model) Fill(ctx context.Context, path string, input []float32) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := picture.Decode(ctx, sensors.NewPool(1), data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer f.Release()
	im := kernels.Image{Format: kernels.RGB24, Width: f.Width, Height: f.Height}
	im.Planes[0] = kernels.Plane{Data: f.Planes[0].Data, StrideBytes: f.Planes[0].StrideBytes}
	shape := m.Input.Shape
	kernels.NewLetterbox(f.Width, f.Height, int(shape[3]), int(shape[2])).Into(input, &im, &m.Norm)
	return nil
}
