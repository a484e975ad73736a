package config

import "path/filepath"

// uart checks a fingerprint module at a serial port; the others must not have its keys.
func (v *validator) uart(key string, s *Sensor) {
	if s.Driver != DriverUART {
		v.require(s.Baud == 0 && s.Password == 0 && s.PasswordFile == "" && !s.Light, key+".baud", "baud, password, password_file and light are keys of the driver uart")
		return
	}
	v.require(s.Modality == "finger", key+".modality", "%q: the driver uart reads fingers: \"finger\"", s.Modality)
	v.require(s.Baud == 0 || s.Baud%9600 == 0 && s.Baud > 0 && s.Baud <= 115200, key+".baud",
		"%d: a multiple of 9600 up to 115200, or 0 to find it", s.Baud)
	v.require(s.Password >= 0 && s.Password < 1<<32, key+".password", "a number of 32 bits")
	v.require(s.PasswordFile == "" || s.Password == 0 && filepath.IsAbs(s.PasswordFile), key+".password_file",
		"%q: an absolute path, instead of password", s.PasswordFile)
	v.require(s.Width == 0 && s.Height == 0 || s.Width > 0 && s.Width%2 == 0 && s.Width <= 1024 && s.Height > 0 && s.Height <= 1024,
		key+".width", "%d x %d: an even width and a height up to 1024 pixels, or both left out", s.Width, s.Height)
}
