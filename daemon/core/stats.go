package core

import (
	"sync"
	"time"

	"vigil/infer/face"
	"vigil/infer/finger"
)

// Stages that are timed beside those of the pipeline.
const (
	StageMatch    = "match"    // 1:N search of one face or finger
	StageCommit   = "commit"   // decision made durable: audit, outbox, fsync
	StageFrame    = "frame"    // capture to the end of the search, all faces of a frame
	StageDecision = "decision" // capture of the deciding frame to durable decision
)

// stageOrder is the order in which stages are shown.
var stageOrder = []string{face.StageDetect, face.StageAlign, face.StageQuality, face.StageLiveness, face.StageEmbed,
	finger.StageExtract, finger.StageDescribe, StageMatch, StageFrame, StageCommit, StageDecision}

// window is how many of the latest observations of a stage the quantiles are taken over.
const window = 4096

// Stats keeps the latest latencies per stage. Memory is fixed; safe for concurrent use.
type Stats struct {
	mu    sync.Mutex
	rings map[string]*ring
}

type ring struct {
	took  [window]time.Duration
	total uint64
	late  uint64
}

func newStats() *Stats {
	s := &Stats{rings: map[string]*ring{}}
	for _, name := range stageOrder {
		s.rings[name] = &ring{}
	}
	return s
}

func (s *Stats) observe(stage string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rings[stage]; r != nil {
		r.took[r.total%window] = took
		r.total++
	}
}

func (s *Stats) late(stage string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rings[stage]; r != nil {
		r.late++
	}
}

// Latency sums up one stage. Quantiles are over the latest 4096 observations, in milliseconds.
type Latency struct {
	Stage string  `json:"stage"`
	Count uint64  `json:"count"` // since the start
	Late  uint64  `json:"late"`  // over the stage's deadline
	P50   float64 `json:"p50_ms"`
	P95   float64 `json:"p95_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// Latencies returns the stages that have observations, in the order of the way of a frame.
func (s *Stats) Latencies() []Latency {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Latency
	for _, name := range stageOrder {
		r := s.rings[name]
		if r.total == 0 {
			continue
		}
		l := summary(name, r.took[:min(r.total, window)], r.total)
		l.Late = r.late
		list = append(list, l)
	}
	return list
}
