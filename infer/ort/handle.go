package ort

import (
	"fmt"
	"reflect"
	"unsafe"

	ortgo "github.com/yalue/onnxruntime_go"
)

// The binding lacks some calls of ONNX Runtime and hides the C objects that they need. Each is the first field of the
// binding's struct; what is not as it was in v1.27.0 is refused here.

func handleOf(opts *ortgo.SessionOptions) (unsafe.Pointer, error) {
	return firstPointer(reflect.ValueOf(opts).Elem(), "session options")
}

func sessionOf(s *ortgo.DynamicAdvancedSession) (unsafe.Pointer, error) {
	v := reflect.ValueOf(s).Elem().Field(0)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return nil, otherBinding("sessions")
	}
	return firstPointer(v.Elem(), "sessions")
}

func bindingOf(b *ortgo.IoBinding) (unsafe.Pointer, error) {
	return firstPointer(reflect.ValueOf(b).Elem(), "bindings")
}

func runOptionsOf(o *ortgo.RunOptions) (unsafe.Pointer, error) {
	return firstPointer(reflect.ValueOf(o).Elem(), "run options")
}

func firstPointer(v reflect.Value, what string) (unsafe.Pointer, error) {
	if v.NumField() == 0 || v.Field(0).Kind() != reflect.Pointer || v.Field(0).IsNil() {
		return nil, otherBinding(what)
	}
	return v.Field(0).UnsafePointer(), nil
}

func otherBinding(what string) error {
	return fmt.Errorf("the binding of ONNX Runtime keeps its %s in another way than v1.27.0 did", what)
}
