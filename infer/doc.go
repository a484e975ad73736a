// Package infer turns frames into templates: bundles that describe models, runtimes that load them, engines that run
// them, and the pipeline of stages between a frame and a template.
//
// Promises: a bundle is checked in full (strict JSON, SHA-256 of every file, tensors against what the model really has)
// before an engine is made from it. An engine's tensors are allocated once and bound once; a pipeline in steady state
// allocates nothing and copies a frame's pixels once, into the input tensor. Every stage has a deadline; a stage that is
// late is counted, and the frame is given up when the context ends. Scores are comparable only within one model id.
//
// A Pipeline is used by one goroutine at a time, blocks while an engine runs, owns its engines, and borrows the frame and
// the Result it fills.
//
// It keeps no template, decides nothing, reads no file of its own accord, and knows no execution provider: those are the
// folders below, behind Runtime.
package infer
