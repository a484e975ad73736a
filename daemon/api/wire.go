package api

import (
	"time"

	"vigil/daemon/core"
	"vigil/store"
)

// Bounds of a request.
const (
	maxBodyBytes = 96 << 20 // pictures in base64
	defaultPage  = 100
	maxPage      = 1000
)

// EnrollRequest enrols a person, from pictures or at a sensor: one of the two.
type EnrollRequest struct {
	Name     string   `json:"name,omitempty"`
	Subject  string   `json:"subject,omitempty"`  // adds to a person who is enrolled; then without a name
	Modality string   `json:"modality,omitempty"` // of the pictures: "face" or "finger"
	DPI      float64  `json:"dpi,omitempty"`      // of pictures of fingers; 500 if left out
	Pictures [][]byte `json:"pictures,omitempty"` // JPEG or PNG
	Sensor   string   `json:"sensor,omitempty"`
}

// MatchRequest is a picture to verify or identify.
type MatchRequest struct {
	Subject string `json:"subject,omitempty"` // verify only
	Picture []byte `json:"picture"`
	// Modality is what the picture shows: "face" or "finger"; DPI is the resolution of a finger's, 500 if left out.
	Modality string  `json:"modality,omitempty"`
	DPI      float64 `json:"dpi,omitempty"`
}

// ImportRequest names a bundle on the device's disk.
type ImportRequest struct {
	Path   string `json:"path"` // absolute: a folder or a tar file
	Preset string `json:"preset,omitempty"`
}

// ExportRequest asks for a bundle as a tar. InClear must be true: it says that the caller knows that the weights leave the
// device without protection.
type ExportRequest struct {
	InClear bool `json:"in_clear"`
}

// Subject is an enrolled person as the interface shows it.
type Subject struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Enrolled  time.Time `json:"enrolled"`
	Samples   int       `json:"samples"`   // pictures the templates were made from
	Templates int       `json:"templates"` // stored
}

// SubjectList is one page of people, in the order of their ids.
type SubjectList struct {
	Subjects []Subject `json:"subjects"`
	Next     string    `json:"next,omitempty"` // pass as ?after= for the next page
}

func page(list []store.Subject, limit int) SubjectList {
	p := SubjectList{Subjects: make([]Subject, 0, len(list))}
	for _, s := range list {
		p.Subjects = append(p.Subjects, Subject{ID: s.ID, Name: s.Name, Enrolled: s.Created, Samples: s.Samples, Templates: s.Templates})
	}
	if len(list) == limit {
		p.Next = list[limit-1].ID
	}
	return p
}

// Problem is the body of every error (RFC 9457).
type Problem struct {
	Title   string         `json:"title"`
	Status  int            `json:"status"`
	Detail  string         `json:"detail"`
	Code    string         `json:"code"`              // stable, for programs; see problem.go
	Refused []core.Refused `json:"refused,omitempty"` // pictures of an enrolment, numbered as they were sent
}

// Error implements error, for the client.
func (p *Problem) Error() string { return p.Detail }
