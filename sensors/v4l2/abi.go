package v4l2

import "vigil/sensors/v4l2/internal/uapi"

// The kernel's structures, by the names that the driver speaks of.
type (
	capability        = uapi.Capability
	fmtDesc           = uapi.FmtDesc
	frmSizeEnum       = uapi.FrmSizeEnum
	frmIvalEnum       = uapi.FrmIvalEnum
	pixFormat         = uapi.PixFormat
	pixFormatMplane   = uapi.PixFormatMplane
	planePix          = uapi.PlanePix
	format            = uapi.Format
	streamParm        = uapi.StreamParm
	requestBuffers    = uapi.RequestBuffers
	plane             = uapi.Plane
	buffer            = uapi.Buffer
	exportBuffer      = uapi.ExportBuffer
	control           = uapi.Control
	queryCtrl         = uapi.QueryCtrl
	event             = uapi.Event
	eventSubscription = uapi.EventSubscription
)
