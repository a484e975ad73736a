package synth

type canvas struct{}
