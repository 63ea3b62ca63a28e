// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Testsum reads the output of go test -json and prints what go test would have
// printed: a line for each package and all that a failed test said. It adds the
// reason of each skipped test and ends with one line of totals.
//
// It exits with 1 if anything failed, if no test ran, or if the environment says
// CI=true and a test was skipped. With -wine, tests may be skipped for what wine
// lacks, and are counted by that. With -each, a package of which no test ran is a
// failure: what go test -run names is gone.
//
//	go test -json ./... | go run ./internal/house/testsum
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// An event is a line of go test -json, as cmd/test2json and go help buildjson
// describe it.
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// wineLacks finds what house.WineLacks says.
var wineLacks = regexp.MustCompile(`(?m)^ +\S+\.go:\d+: wine lacks (.+)$`)

// A summary counts results. Tests are counted with their subtests, as -v lists them.
type summary struct {
	options
	out                     io.Writer
	passed, failed, skipped int
	packages                int
	ran                     map[string]bool        // packages that have no result yet, but a test's
	broken                  bool                   // something other than a test failed
	lacking                 map[string]int         // how many were skipped for what wine lacks
	said                    map[[2]string][]string // output by package and test that has no result yet
}

// options are what may be, and what must.
type options struct {
	strict bool // no test may be skipped
	wine   bool // but for what wine lacks
	each   bool // each package has to run a test
}

func main() {
	var o options
	o.strict = os.Getenv("CI") == "true" //nolint:forbidigo // how CI systems say that they are one
	flag.BoolVar(&o.wine, "wine", false, "tests may be skipped for what wine lacks")
	flag.BoolVar(&o.each, "each", false, "each package has to run a test")
	flag.Parse()
	if err := run(os.Stdin, os.Stdout, o); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
}

// run sums up the events of in.
func run(in io.Reader, out io.Writer, o options) error {
	s := summary{options: o, out: out, ran: map[string]bool{}, said: map[[2]string][]string{}, lacking: map[string]int{}}
	err := s.read(in)
	s.print(fmt.Sprintf("%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped))
	allowed := 0
	for _, what := range slices.Sorted(maps.Keys(s.lacking)) {
		s.print(fmt.Sprintf("%d skipped: wine lacks %s\n", s.lacking[what], what))
		allowed += s.lacking[what]
	}
	switch {
	case err != nil:
		return err
	case s.failed > 0 || s.broken:
		return errors.New("not everything passed")
	case s.packages == 0:
		return errors.New("no package was tested")
	case s.passed+s.skipped == 0:
		return errors.New("no test ran")
	case s.strict && s.skipped > allowed:
		return errors.New("CI=true, so no test may be skipped")
	}
	return nil
}

// read takes events until r ends. A line that is none is passed on.
func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		var e event
		switch {
		case line == "":
		case json.Unmarshal([]byte(line), &e) != nil:
			s.print(line)
		default:
			s.take(e)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// take counts one event. Output of a test waits for the result of that test.
func (s *summary) take(e event) {
	key := [2]string{e.Package, e.Test}
	switch e.Action {
	case "output":
		if e.Test != "" {
			s.said[key] = append(s.said[key], e.Output)
		} else if e.Output != "PASS\n" {
			s.print(e.Output)
		}
	case "build-output":
		s.print(e.Output)
	case "build-fail":
		s.broken = true
	case "pass", "fail", "skip":
		s.result(e, key)
	}
}

// result counts the end of a test or of a package, and prints what a test said
// unless it passed.
func (s *summary) result(e event, key [2]string) {
	said := s.said[key]
	delete(s.said, key)
	if e.Test != "" {
		s.ran[e.Package] = true
	}
	switch {
	case e.Test == "" && e.Action == "skip": // a package without tests
	case e.Test == "":
		s.packages++
		s.broken = s.broken || e.Action == "fail"
		s.unfinished(e.Package)
		if s.each && !s.ran[e.Package] {
			s.print("no test ran in " + e.Package + "\n")
			s.broken = true
		}
		delete(s.ran, e.Package) // which may come again, from another go test
	case e.Action == "pass":
		s.passed++
	case e.Action == "fail":
		s.failed++
		s.print(said...)
	default:
		s.skipped++
		if what := wineLacks.FindStringSubmatch(strings.Join(said, "")); s.wine && what != nil {
			s.lacking[what[1]]++
		} else {
			s.print(said...)
		}
	}
}

// unfinished prints what the tests of a package said whose result never came:
// the package timed out or crashed.
func (s *summary) unfinished(pkg string) {
	for key, said := range s.said {
		if key[0] == pkg {
			s.print(said...)
			delete(s.said, key)
		}
	}
}

// print leaves out the lines in which go test -v tells a test's progress.
func (s *summary) print(lines ...string) {
	for _, line := range lines {
		if !strings.HasPrefix(line, "=== ") {
			_, _ = io.WriteString(s.out, line) // nobody is left to tell
		}
	}
}
