// Package result is what the guests of the lab and their host say to each other: the names of the machines, and one line
// of JSON a case, on a serial port. It blocks on and owns nothing.
package result

// Row is the outcome of one case, or how far it is.
type Row struct {
	Suite string  `json:"suite"`
	Case  string  `json:"case"`
	Now   bool    `json:"now,omitempty"` // it goes on; Note says how far it is
	OK    bool    `json:"ok"`
	Skip  bool    `json:"skip,omitempty"`
	Note  string  `json:"note"` // figures, or what went wrong
	Secs  float64 `json:"secs"`
}

// Prefix begins a line that holds a Row; other lines are for people.
const Prefix = "LAB "

// Done is the line behind the last row.
const Done = "LAB-DONE"

// Machine is one guest: every case names the one that it runs in.
type Machine struct {
	Name string
	CPUs int
}

// Machines of the lab. gadgetfs has one camera a machine, and wants one processor (lab/guest/device.go says why).
var (
	Camera   = Machine{"camera", 2}
	USB      = Machine{"usb", 1}
	USBMJPEG = Machine{"usb-mjpeg", 1}
	USBYUYV  = Machine{"usb-yuyv", 1}
	USBNV12  = Machine{"usb-nv12", 1}
	USBGrey  = Machine{"usb-grey", 1}
)

// Steps are the machines of a run: those of one step run beside each other, so that long streams take no longer than one.
var Steps = [][]Machine{{Camera}, {USB}, {USBMJPEG, USBYUYV, USBNV12, USBGrey}}
