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
	Name     string   `json:"name,omitempty" schema:"maxlen=200" doc:"of a new person"`
	Subject  string   `json:"subject,omitempty" schema:"pattern=^([0-9a-f]{32})?$" doc:"adds to a person who is enrolled; then without a name"`
	Modality string   `json:"modality,omitempty" schema:"enum=face|finger|" doc:"what the pictures show; face if left out, unless faces are switched off"`
	DPI      float64  `json:"dpi,omitempty" schema:"min=0,max=5000" doc:"resolution of pictures of fingers; 500 if left out"`
	Pictures [][]byte `json:"pictures,omitempty" schema:"maxitems=16" doc:"JPEG or PNG"`
	Sensor   string   `json:"sensor,omitempty" doc:"instead of pictures: takes the person in front of this sensor"`
}

// MatchRequest is a picture to verify or identify.
type MatchRequest struct {
	Subject  string  `json:"subject,omitempty" schema:"pattern=^([0-9a-f]{32})?$" doc:"verify only: who is claimed"`
	Picture  []byte  `json:"picture" doc:"JPEG or PNG"`
	Modality string  `json:"modality,omitempty" schema:"enum=face|finger|" doc:"what the picture shows; face if left out, unless faces are switched off"`
	DPI      float64 `json:"dpi,omitempty" schema:"min=0,max=5000" doc:"resolution of a picture of a finger; 500 if left out"`
}

// IdentifyRequest is a MatchRequest without a claim.
type IdentifyRequest struct {
	Picture  []byte  `json:"picture" doc:"JPEG or PNG"`
	Modality string  `json:"modality,omitempty" schema:"enum=face|finger|" doc:"what the picture shows; face if left out, unless faces are switched off"`
	DPI      float64 `json:"dpi,omitempty" schema:"min=0,max=5000" doc:"resolution of a picture of a finger; 500 if left out"`
}

// EnrollmentRequest begins an enrolment picture by picture.
type EnrollmentRequest struct {
	Name     string `json:"name,omitempty" schema:"maxlen=200" doc:"of a new person"`
	Subject  string `json:"subject,omitempty" schema:"pattern=^([0-9a-f]{32})?$" doc:"adds to a person who is enrolled; then without a name"`
	Modality string `json:"modality,omitempty" schema:"enum=face|finger|" doc:"what the pictures show; face if left out, unless faces are switched off"`
}

// SampleRequest is one picture of an enrolment.
type SampleRequest struct {
	Picture []byte  `json:"picture" doc:"JPEG or PNG"`
	DPI     float64 `json:"dpi,omitempty" schema:"min=0,max=5000" doc:"resolution of a picture of a finger; 500 if left out"`
}

// Enrollment is an enrolment in progress.
type Enrollment struct {
	ID       string    `json:"id" schema:"pattern=^[0-9a-f]{32}$"`
	Modality string    `json:"modality"`
	Wanted   int       `json:"wanted" doc:"good samples that are still needed before it can be finished"`
	Expires  time.Time `json:"expires" doc:"when it is given up, unless it is used before"`
}

// ImportRequest names a bundle on the device's disk.
type ImportRequest struct {
	Path   string `json:"path" schema:"pattern=^/" doc:"absolute: a folder or a tar file on the device"`
	Preset string `json:"preset,omitempty" doc:"name of a preset, when the files are only its weights"`
}

// Imported is the answer to an import.
type Imported struct {
	ID string `json:"id"`
}

// ExportRequest asks for a bundle as a tar. InClear must be true: it says that the caller knows that the weights leave the
// device without protection.
type ExportRequest struct {
	InClear bool `json:"in_clear" doc:"must be true: the weights leave the device without protection"`
}

// TokenRequest asks for a token.
type TokenRequest struct {
	Name           string `json:"name" schema:"pattern=^[a-z0-9][a-z0-9.-]{0,62}$" doc:"for people and the audit"`
	Scope          string `json:"scope" schema:"enum=viewer|enroller|operator"`
	ExpiresSeconds int64  `json:"expires_seconds,omitempty" schema:"min=0,max=3153600000" doc:"how long it is good for; for ever if left out"`
}

// NewToken is a token with its secret, which is shown this once.
type NewToken struct {
	core.Token
	Secret string `json:"secret" doc:"for the header Authorization: Bearer; it cannot be had again"`
}

// Live is the answer of a process that serves.
type Live struct {
	Live bool `json:"live"`
}

// Ready is the answer of a device that can recognise somebody.
type Ready struct {
	Ready bool `json:"ready"`
}

// Health says how the device is.
type Health struct {
	State    string   `json:"state" schema:"enum=ready|degraded"`
	Ready    bool     `json:"ready" doc:"somebody can be recognised"`
	Reason   string   `json:"reason,omitempty" doc:"why nobody can be recognised"`
	Degraded []string `json:"degraded,omitempty" doc:"what is wrong, part: reason"`
	Notes    []string `json:"notes,omitempty" doc:"what must be said everywhere"`
}

// Subject is an enrolled person as the interface shows it.
type Subject struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Enrolled  time.Time `json:"enrolled"`
	Samples   int       `json:"samples" doc:"pictures the templates were made from"`
	Templates int       `json:"templates" doc:"stored"`
}

// SubjectList is one page of people, in the order of their ids.
type SubjectList struct {
	Subjects []Subject `json:"subjects"`
	Next     string    `json:"next,omitempty" doc:"pass as after for the next page"`
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
	Code    string         `json:"code" doc:"stable, for programs"`
	Refused []core.Refused `json:"refused,omitempty" doc:"pictures of an enrolment, numbered as they were sent"`

	retry time.Duration // for the header Retry-After
}

// Error implements error, for the client.
func (p *Problem) Error() string { return p.Detail }
