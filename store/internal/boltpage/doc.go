// Package boltpage checks the structure of a bbolt file (format version 2)
// without mapping it, so that a damaged file gives a list of problems where
// bbolt itself panics or reads past the end of the file.
//
// It covers what bbolt takes for granted when it follows a page: identity and
// kind of every page, bounds of every element, order of keys within and between
// pages, that every page is used once or free but not both, and the free list.
// Contents of values are not looked at. Check reads pages through an io.ReaderAt
// one after the other, owns nothing, and does not write.
package boltpage
