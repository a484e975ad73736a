package api

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"vigil/daemon/api/kserve"
	"vigil/daemon/api/openapi"
	"vigil/daemon/config"
	"vigil/daemon/core"
	"vigil/store"
)

// route is one row of the table: what it is called, who may use it, what goes in, what comes out and what can go wrong. It
// has either serve, whose result is the answer in JSON, or stream, which answers by itself.
type route struct {
	openapi.Operation
	status int            // of a good answer; 0 is 200
	out    []openapi.Body // of a good answer
	codes  []string       // of problems beside those that every route can have
	serve  func(h *handler, r request) (any, error)
	stream func(h *handler, w http.ResponseWriter, r request)
	kserve bool // of the protocol of KServe: served only where it is configured, with errors of its own form
}

// Codes of problems that come together.
var (
	commonCodes  = []string{"bad_request", "unauthenticated", "scope", "rate", "overloaded", "closing", "canceled", "timeout"}
	jsonCodes    = []string{"too_large", "media_type"}
	pictureCodes = []string{"picture_format", "picture_too_large", "picture_empty", "picture_broken", "picture_unfit"}
	seenCodes    = []string{"no_face", "no_finger", "several_faces"}
	modelCodes   = []string{"modality", "busy", "no_runtime", "no_model", "model_choice", "no_liveness", "off"}
	bundleCodes  = []string{"no_model_bundle", "manifest", "checksum", "tar", "modality", "no_runtime"}
	personCodes  = []string{"invalid", "not_found"}
	enrollCodes  = []string{"samples", "presentation_attack", "duplicate", "disk_full"}
)

// jsonOf is a body of JSON of a type.
func jsonOf[T any]() []openapi.Body {
	return []openapi.Body{{Type: "application/json", Of: openapi.Type[T]()}}
}

// pictureOf is a picture in JSON, or as the body itself.
func pictureOf[T any]() []openapi.Body {
	return append(jsonOf[T](), openapi.Body{Type: typeJPEG}, openapi.Body{Type: typePNG}, openapi.Body{Type: typeRaw})
}

func textBody(kind string) []openapi.Body {
	return []openapi.Body{{Type: kind, Schema: &openapi.Schema{Type: "string"}}}
}

func query(name, kind, text string) openapi.Param {
	return openapi.Param{Name: name, In: openapi.Query, Text: text, Schema: openapi.Schema{Type: kind}}
}

func bounded(p openapi.Param, low, high float64) openapi.Param {
	p.Schema.Minimum, p.Schema.Maximum = &low, &high
	return p
}

func oneOf(p openapi.Param, values ...string) openapi.Param {
	for _, v := range values {
		p.Schema.Enum = append(p.Schema.Enum, v)
	}
	return p
}

func inPath(name, text string) openapi.Param {
	return openapi.Param{Name: name, In: openapi.Path, Text: text, Schema: openapi.Schema{Type: "string"}}
}

// Parameters that several routes have.
var (
	dpiParam      = bounded(query("dpi", "number", "Resolution of a picture of a finger; 500 if left out."), 0, maxDPI)
	modalityParam = oneOf(query("modality", "string", "What the picture shows."), core.Modalities...)
	rawParams     = []openapi.Param{
		bounded(query("width", "integer", "Of raw pixels, which have no rows of padding."), 1, maxSide),
		bounded(query("height", "integer", "Of raw pixels."), 1, maxSide),
		oneOf(query("format", "string", "Layout of raw pixels, as V4L2 names it."), "Gray8", "RGB24", "NV12", "YUYV"),
		query("full_range", "boolean", "Luma of NV12 and YUYV spans 0 to 255, not 16 to 235."),
	}
	subjectID   = openapi.Param{Name: "id", In: openapi.Path, Text: "Id of a person.", Schema: openapi.Schema{Type: "string", Pattern: "^[0-9a-f]{32}$"}}
	subjectOf   = openapi.Param{Name: "subject", In: openapi.Query, Text: "Who is claimed.", Schema: openapi.Schema{Type: "string", Pattern: "^[0-9a-f]{32}$"}}
	bundleID    = inPath("id", "Id of a bundle.")
	inProgress  = openapi.Param{Name: "id", In: openapi.Path, Text: "Id of an enrolment in progress.", Schema: openapi.Schema{Type: "string", Pattern: "^[0-9a-f]{32}$"}}
	tokenID     = inPath("id", "Id of a token.")
	modelName   = inPath("name", "BUNDLE.STAGE")
	lastEventID = openapi.Param{Name: "Last-Event-ID", In: openapi.Header, Text: "Number of the last event that the client has; it goes before the parameter after.",
		Schema: openapi.Schema{Type: "string", Pattern: "^[0-9]{1,18}$"}}
)

const pictureText = "The picture is base64 in JSON, or the body itself: a JPEG, a PNG, or raw pixels (application/octet-stream), which are " +
	"described by the query and are not decoded. The body itself is the faster way."

// Scopes by their short names in the table.
const (
	viewer   = config.ScopeViewer
	enroller = config.ScopeEnroller
	operator = config.ScopeOperator
)

// routes is the whole interface: the scope of a row is the least that may use it.
var routes = []route{
	{Operation: openapi.Operation{Method: "GET", Path: "/v1/status", Scope: viewer, Tag: "state", ID: "status",
		Summary: "Everything an operator asks a device first"},
		out: jsonOf[core.Status](), serve: func(h *handler, _ request) (any, error) { return h.app.Status(), nil }},
	{Operation: openapi.Operation{Method: "GET", Path: "/v1/health", Scope: viewer, Tag: "state", ID: "health",
		Summary: "How the device is, with reasons"},
		out: jsonOf[Health](), serve: (*handler).health},
	{Operation: openapi.Operation{Method: "GET", Path: "/v1/health/live", Scope: viewer, Tag: "state", ID: "live",
		Summary: "Whether the process serves"},
		out: jsonOf[Live](), serve: (*handler).live},
	{Operation: openapi.Operation{Method: "GET", Path: "/v1/health/ready", Scope: viewer, Tag: "state", ID: "ready",
		Summary: "Whether somebody can be recognised"},
		out: jsonOf[Ready](), codes: modelCodes, serve: (*handler).ready},
	{Operation: openapi.Operation{Method: "GET", Path: "/v1/metrics", Scope: viewer, Tag: "state", ID: "metrics",
		Summary: "Figures in the text format of Prometheus"},
		out: textBody("text/plain"), stream: (*handler).metrics},
	{Operation: openapi.Operation{Method: "GET", Path: "/v1/openapi.json", Scope: viewer, Tag: "state", ID: "openapi",
		Summary: "This document"},
		out: []openapi.Body{{Type: "application/json", Schema: &openapi.Schema{Type: "object"}}}, stream: (*handler).openAPI},
	{Operation: openapi.Operation{Method: "GET", Path: "/v1/sensors", Scope: viewer, Tag: "state", ID: "sensors",
		Summary: "The sensors and their state"},
		out: jsonOf[[]core.SensorStatus](), serve: func(h *handler, _ request) (any, error) { return h.app.Sensors(), nil }},
	{Operation: openapi.Operation{Method: "GET", Path: "/v1/events", Scope: viewer, Tag: "state", ID: "events",
		Summary: "What happens, as server-sent events",
		Text: "Every entry of the audit log, without who asked for it: the field id is its number, the field event its type, the data JSON. " +
			"It begins with what comes next, or behind the event that the client names. A client that reads nothing for ten seconds is cut off.",
		Params: []openapi.Param{query("after", "integer", "Number of the last event that the client has; 0 begins with the first."),
			query("types", "string", "Types of events, with commas between them; all if left out."), lastEventID}},
		out: textBody("text/event-stream"), stream: (*handler).events},

	{Operation: openapi.Operation{Method: "POST", Path: "/v1/verify", Scope: viewer, Tag: "recognise", ID: "verify",
		Summary: "Compare a face or finger with one person", Text: pictureText, Bodies: pictureOf[MatchRequest](),
		Params: append([]openapi.Param{subjectOf, modalityParam, dpiParam}, rawParams...)},
		out: jsonOf[core.Decision](), serve: (*handler).verify,
		codes: slices.Concat(jsonCodes, pictureCodes, seenCodes, modelCodes, personCodes, []string{"no_template", "disk_full"})},
	{Operation: openapi.Operation{Method: "POST", Path: "/v1/identify", Scope: viewer, Tag: "recognise", ID: "identify",
		Summary: "Search every face of a picture, or its finger", Text: pictureText, Bodies: pictureOf[IdentifyRequest](),
		Params: append([]openapi.Param{modalityParam, dpiParam}, rawParams...)},
		out: jsonOf[[]core.Decision](), serve: (*handler).identifyPicture,
		codes: slices.Concat(jsonCodes, pictureCodes, seenCodes, modelCodes, []string{"disk_full"})},

	{Operation: openapi.Operation{Method: "POST", Path: "/v1/enroll", Scope: enroller, Tag: "people", ID: "enroll",
		Summary: "Enrol a person from pictures, or at a sensor", Bodies: jsonOf[EnrollRequest]()},
		out: jsonOf[core.Enrolled](), serve: (*handler).enroll,
		codes: slices.Concat(jsonCodes, modelCodes, personCodes, enrollCodes, []string{"no_sensor", "sensor_busy"})},
	{Operation: openapi.Operation{Method: "POST", Path: "/v1/enrollments", Scope: enroller, Tag: "people", ID: "beginEnrollment",
		Summary: "Begin an enrolment picture by picture, with advice after each", Bodies: jsonOf[EnrollmentRequest]()},
		status: http.StatusCreated, out: jsonOf[Enrollment](), serve: (*handler).beginEnrollment,
		codes: slices.Concat(jsonCodes, modelCodes, personCodes)},
	{Operation: openapi.Operation{Method: "GET", Path: "/v1/enrollments/{id}", Scope: enroller, Tag: "people", ID: "showEnrollment",
		Summary: "How far an enrolment is", Params: []openapi.Param{inProgress}},
		out: jsonOf[Enrollment](), serve: (*handler).showEnrollment, codes: []string{"no_enrollment", "enrollment_busy"}},
	{Operation: openapi.Operation{Method: "POST", Path: "/v1/enrollments/{id}/samples", Scope: enroller, Tag: "people", ID: "addSample",
		Summary: "Show a picture to an enrolment",
		Text:    "A picture that is not accepted is no error: the answer says in words what is wrong with it. " + pictureText,
		Bodies:  pictureOf[SampleRequest](), Params: append([]openapi.Param{inProgress, dpiParam}, rawParams...)},
		out: jsonOf[core.Sampled](), serve: (*handler).addSample,
		codes: slices.Concat(jsonCodes, pictureCodes, modelCodes, []string{"no_enrollment", "enrollment_busy", "not_found", "samples"})},
	{Operation: openapi.Operation{Method: "POST", Path: "/v1/enrollments/{id}/finish", Scope: enroller, Tag: "people", ID: "finishEnrollment",
		Summary: "Enrol the person of the samples", Params: []openapi.Param{inProgress}},
		out: jsonOf[core.Enrolled](), serve: (*handler).finishEnrollment,
		codes: slices.Concat(modelCodes, personCodes, enrollCodes, []string{"no_enrollment", "enrollment_busy"})},
	{Operation: openapi.Operation{Method: "DELETE", Path: "/v1/enrollments/{id}", Scope: enroller, Tag: "people", ID: "dropEnrollment",
		Summary: "Give an enrolment up and wipe its samples", Params: []openapi.Param{inProgress}},
		out: jsonOf[struct{}](), serve: (*handler).dropEnrollment, codes: []string{"no_enrollment", "enrollment_busy"}},
	{Operation: openapi.Operation{Method: "GET", Path: "/v1/subjects", Scope: enroller, Tag: "people", ID: "subjects",
		Summary: "Enrolled people, page by page", Params: []openapi.Param{
			bounded(query("limit", "integer", "People of a page; 100 if left out."), 1, maxPage),
			{Name: "after", In: openapi.Query, Text: "The next of the page before.", Schema: openapi.Schema{Type: "string", Pattern: "^[0-9a-f]{32}$"}}}},
		out: jsonOf[SubjectList](), serve: (*handler).subjects, codes: []string{"invalid"}},
	{Operation: openapi.Operation{Method: "DELETE", Path: "/v1/subjects/{id}", Scope: enroller, Tag: "people", ID: "deleteSubject",
		Summary: "Erase a person", Params: []openapi.Param{subjectID}},
		out: jsonOf[struct{}](), codes: slices.Concat(personCodes, []string{"disk_full"}),
		serve: func(h *handler, r request) (any, error) {
			return struct{}{}, h.app.DeleteSubject(r.Context(), r.PathValue("id"))
		}},

	{Operation: openapi.Operation{Method: "GET", Path: "/v1/models", Scope: viewer, Tag: "models", ID: "models",
		Summary: "The bundles of models"},
		out: jsonOf[[]core.ModelInfo](), serve: func(h *handler, _ request) (any, error) { return h.app.Models() }},
	{Operation: openapi.Operation{Method: "POST", Path: "/v1/models", Scope: operator, Tag: "models", ID: "importModel",
		Summary: "Import a bundle that lies on the device's disk", Bodies: jsonOf[ImportRequest]()},
		out: jsonOf[Imported](), serve: (*handler).importModel,
		codes: slices.Concat(jsonCodes, bundleCodes, []string{"import", "no_preset", "exists", "disk_full", "no_liveness"})},
	{Operation: openapi.Operation{Method: "GET", Path: "/v1/models/{id}", Scope: viewer, Tag: "models", ID: "model",
		Summary: "Everything about one bundle but its weights", Params: []openapi.Param{bundleID}},
		out: jsonOf[core.ModelDetail](), codes: bundleCodes,
		serve: func(h *handler, r request) (any, error) { return h.app.Model(r.PathValue("id")) }},
	{Operation: openapi.Operation{Method: "POST", Path: "/v1/models/{id}/verify", Scope: operator, Tag: "models", ID: "verifyModel",
		Summary: "Check the files of a bundle and run its models once", Params: []openapi.Param{bundleID}},
		out: jsonOf[core.ModelReport](), codes: bundleCodes,
		serve: func(h *handler, r request) (any, error) { return h.app.VerifyModel(r.Context(), r.PathValue("id")) }},
	{Operation: openapi.Operation{Method: "POST", Path: "/v1/models/{id}/export", Scope: operator, Tag: "models", ID: "exportModel",
		Summary: "A bundle as a tar, its weights in clear", Params: []openapi.Param{bundleID}, Bodies: jsonOf[ExportRequest]()},
		out: []openapi.Body{{Type: "application/x-tar"}}, codes: slices.Concat(jsonCodes, bundleCodes, []string{"disk_full"}),
		stream: (*handler).exportModel},
	{Operation: openapi.Operation{Method: "POST", Path: "/v1/models/{id}/use", Scope: operator, Tag: "models", ID: "useModel",
		Summary: "Take a bundle into use between two frames, if it answers a check set as it must", Params: []openapi.Param{bundleID}},
		out: jsonOf[core.SwapReport](), codes: slices.Concat(bundleCodes, []string{"off", "swapping", "catching_up", "disagrees", "disk_full"}),
		serve: func(h *handler, r request) (any, error) { return h.app.SwapModel(r.Context(), r.PathValue("id")) }},
	{Operation: openapi.Operation{Method: "POST", Path: "/v1/models/{id}/build", Scope: operator, Tag: "models", ID: "buildEngines",
		Summary: "Build a runtime's engines of a bundle: lines of JSON, progress and then a report or a problem", Params: []openapi.Param{bundleID}, Bodies: jsonOf[BuildRequest]()},
		out: textBody("application/x-ndjson"), codes: slices.Concat(jsonCodes, bundleCodes, []string{"no_builder", "disk_full"}),
		stream: (*handler).buildModel},
	{Operation: openapi.Operation{Method: "DELETE", Path: "/v1/models/{id}", Scope: operator, Tag: "models", ID: "removeModel",
		Summary: "Delete a bundle that is not in use", Params: []openapi.Param{bundleID}},
		out: jsonOf[struct{}](), codes: []string{"no_model_bundle", "model_in_use", "disk_full"},
		serve: func(h *handler, r request) (any, error) {
			return struct{}{}, h.app.RemoveModel(r.Context(), r.PathValue("id"))
		}},

	{Operation: openapi.Operation{Method: "POST", Path: "/v1/check", Scope: operator, Tag: "care", ID: "check",
		Summary: "Verify the whole store while it is in use"},
		out: jsonOf[store.Report](), serve: func(h *handler, _ request) (any, error) { return h.app.Check() }},
	{Operation: openapi.Operation{Method: "GET", Path: "/v1/tokens", Scope: operator, Tag: "care", ID: "tokens",
		Summary: "The tokens, without their secrets"},
		out: jsonOf[[]core.Token](), serve: func(h *handler, r request) (any, error) { return h.app.Tokens(r.Context()) }},
	{Operation: openapi.Operation{Method: "POST", Path: "/v1/tokens", Scope: operator, Tag: "care", ID: "createToken",
		Summary: "Make a token; its secret is shown once", Bodies: jsonOf[TokenRequest]()},
		status: http.StatusCreated, out: jsonOf[NewToken](), serve: (*handler).createToken,
		codes: slices.Concat(jsonCodes, []string{"invalid", "token_limit", "disk_full"})},
	{Operation: openapi.Operation{Method: "DELETE", Path: "/v1/tokens/{id}", Scope: operator, Tag: "care", ID: "revokeToken",
		Summary: "Make a token useless at once", Params: []openapi.Param{tokenID}},
		out: jsonOf[struct{}](), codes: []string{"no_token", "disk_full"},
		serve: func(h *handler, r request) (any, error) {
			return struct{}{}, h.app.RevokeToken(r.Context(), r.PathValue("id"))
		}},

	{Operation: openapi.Operation{Method: "GET", Path: "/v2", Scope: operator, Tag: "kserve", ID: "serverMetadata",
		Summary: "The server of models"}, kserve: true,
		out: jsonOf[kserve.ServerMetadata](), serve: (*handler).serverMetadata},
	{Operation: openapi.Operation{Method: "GET", Path: "/v2/health/live", Scope: operator, Tag: "kserve", ID: "serverLive",
		Summary: "Whether the process serves"}, kserve: true,
		out: jsonOf[Live](), serve: (*handler).live},
	{Operation: openapi.Operation{Method: "GET", Path: "/v2/health/ready", Scope: operator, Tag: "kserve", ID: "serverReady",
		Summary: "Whether somebody can be recognised"}, kserve: true,
		out: jsonOf[Ready](), codes: modelCodes, serve: (*handler).ready},
	{Operation: openapi.Operation{Method: "GET", Path: "/v2/models/{name}", Scope: operator, Tag: "kserve", ID: "modelMetadata",
		Summary: "Tensors of a model: a stage of a bundle in use", Params: []openapi.Param{modelName}}, kserve: true,
		out: jsonOf[kserve.ModelMetadata](), codes: []string{"no_stage"}, serve: (*handler).modelMetadata},
	{Operation: openapi.Operation{Method: "GET", Path: "/v2/models/{name}/ready", Scope: operator, Tag: "kserve", ID: "modelReady",
		Summary: "Whether a model can be run", Params: []openapi.Param{modelName}}, kserve: true,
		out: jsonOf[Ready](), codes: []string{"no_stage"}, serve: (*handler).modelReady},
	{Operation: openapi.Operation{Method: "POST", Path: "/v2/models/{name}/infer", Scope: operator, Tag: "kserve", ID: "infer",
		Summary: "Run a model", Text: "With the header Inference-Header-Content-Length the body is JSON of that length and behind it tensors in " +
			"binary, little endian; so is the answer where binary data is asked for.",
		Params: []openapi.Param{modelName, {Name: kserve.HeaderLength, In: openapi.Header, Text: "Length of the JSON in bytes, where tensors follow it.",
			Schema: openapi.Schema{Type: "string", Pattern: "^[0-9]{1,9}$"}}},
		Bodies: append(jsonOf[kserve.Request](), openapi.Body{Type: typeRaw})}, kserve: true,
		out:    append(jsonOf[kserve.Response](), openapi.Body{Type: typeRaw}),
		codes:  []string{"no_stage", "too_large", "infer"},
		stream: (*handler).infer},
}

// Document is the OpenAPI document of the interface, with or without the protocol of KServe.
func Document(withKServe bool) ([]byte, error) {
	var list []openapi.Operation
	for i := range routes {
		if routes[i].kserve && !withKServe {
			continue
		}
		op := routes[i].Operation
		op.Params = append(slices.Clone(op.Params), openapi.Param{Name: deadlineHeader, In: openapi.Header,
			Text:   "How long the client waits, in milliseconds. What cannot be done by then is refused or given up.",
			Schema: openapi.Schema{Type: "integer", Minimum: ptr(1), Maximum: ptr(maxDeadlineMS)}})
		op.Answers = routes[i].answers()
		list = append(list, op)
	}
	return openapi.Build(openapi.Info{
		Title: "Vigil", Version: "1",
		Text: "The local interface of a biometric appliance. A viewer may look and ask, an enroller also enrol, list and erase people, " +
			"an operator everything; x-vigil-scope is the least scope of an operation.",
	}, list)
}

func ptr(v float64) *float64 { return &v }

// answers lists what can come back: the good answer, and one answer for each status of the problems.
func (t *route) answers() []openapi.Answer {
	status := t.status
	if status == 0 {
		status = http.StatusOK
	}
	list := []openapi.Answer{{Status: status, Bodies: t.out}}
	bodies := []openapi.Body{{Type: "application/problem+json", Of: openapi.Type[Problem]()}}
	if t.kserve {
		bodies = jsonOf[kserve.Failure]()
	}
	byStatus := map[int][]string{}
	for _, code := range slices.Concat(commonCodes, t.codes) {
		s := statusOf(code)
		if !slices.Contains(byStatus[s], code) {
			byStatus[s] = append(byStatus[s], code)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(byStatus)) {
		a := openapi.Answer{Status: s, Text: fmt.Sprintf("%s; code: %s", http.StatusText(s), strings.Join(byStatus[s], ", ")), Bodies: bodies}
		switch s {
		case http.StatusServiceUnavailable, http.StatusTooManyRequests:
			a.Headers = map[string]string{"Retry-After": "Seconds after which the request is welcome."}
		case http.StatusUnauthorized:
			a.Headers = map[string]string{"WWW-Authenticate": "How to show who asks."}
		}
		list = append(list, a)
	}
	return list
}

// statusOf is the status of a code. A code that no error has is a mistake in the table.
func statusOf(code string) int {
	for _, k := range kinds {
		if k.code == code {
			return k.status
		}
	}
	panic("api: the table of routes names the code " + code + ", which no error has")
}
