// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Testsum reads the output of go test -json and prints what go test would have
// printed: a line for each package and all that a failed test said. It adds the
// reason of each skipped test and ends with one line of totals.
//
// It exits with 1 if anything failed, if nothing ran, or if the environment says
// CI=true and a test was skipped, other than for what wine lacks.
//
//	go test -json ./... | go run ./internal/house/testsum
package main

import (
	"bufio"
	"encoding/json"
	"errors"
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

// lacking finds what house.WineLacks says.
var lacking = regexp.MustCompile(`(?m)^ +\S+\.go:\d+: wine lacks (.+)$`)

// A summary counts results. Tests are counted with their subtests, as -v lists them.
type summary struct {
	out                     io.Writer
	passed, failed, skipped int
	packages                int
	broken                  bool                   // something other than a test failed
	wine                    map[string]int         // how many were skipped for what wine lacks
	said                    map[[2]string][]string // output by package and test that has no result yet
}

func main() {
	strict := os.Getenv("CI") == "true" //nolint:forbidigo // how CI systems say that they are one
	if err := run(os.Stdin, os.Stdout, strict); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
}

// run sums up the events of in. A strict run may skip no test.
func run(in io.Reader, out io.Writer, strict bool) error {
	s := summary{out: out, said: map[[2]string][]string{}, wine: map[string]int{}}
	err := s.read(in)
	s.print(fmt.Sprintf("%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped))
	allowed := 0
	for _, what := range slices.Sorted(maps.Keys(s.wine)) {
		s.print(fmt.Sprintf("%d skipped: wine lacks %s\n", s.wine[what], what))
		allowed += s.wine[what]
	}
	switch {
	case err != nil:
		return err
	case s.failed > 0 || s.broken:
		return errors.New("not everything passed")
	case s.packages == 0:
		return errors.New("no package was tested")
	case strict && s.skipped > allowed:
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
	switch {
	case e.Test == "" && e.Action == "skip": // a package without tests
	case e.Test == "":
		s.packages++
		s.broken = s.broken || e.Action == "fail"
		s.unfinished(e.Package)
	case e.Action == "pass":
		s.passed++
	case e.Action == "fail":
		s.failed++
		s.print(said...)
	default:
		s.skipped++
		if what := lacking.FindStringSubmatch(strings.Join(said, "")); what != nil {
			s.wine[what[1]]++
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
