// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	codeBlock = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	link      = regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
	release   = regexp.MustCompile(`^\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}$`)
	section   = regexp.MustCompile(`^(Added|Changed|Deprecated|Removed|Fixed|Security)$`)
)

// TestReadme: its Go blocks are whole files that compile, and its links lead to files.
func TestReadme(t *testing.T) {
	readme := string(read(t, "README.md"))
	blocks := 0
	for _, block := range codeBlock.FindAllStringSubmatch(readme, -1) {
		if block[1] != "go" {
			continue
		}
		blocks++
		file := filepath.Join(t.TempDir(), "block"+strconv.Itoa(blocks)+".go")
		require.NoError(t, os.WriteFile(file, []byte(block[2]), 0o600))
		run(t, "go", "vet", file)
	}
	require.Positive(t, blocks, "the README has no Go example")

	for _, match := range link.FindAllStringSubmatch(codeBlock.ReplaceAllString(readme, ""), -1) {
		if !strings.Contains(match[1], "://") {
			_, err := os.Stat(filepath.Join(root, match[1]))
			require.NoError(t, err, "a link in README.md")
		}
	}
}

// TestChangelog: as https://keepachangelog.com/en/1.1.0/ has it, and a tagged
// commit has a section for its tag.
func TestChangelog(t *testing.T) {
	lines := strings.Split(string(read(t, "CHANGELOG.md")), "\n")
	require.Equal(t, "# Changelog", lines[0])
	var versions []string
	for _, line := range lines {
		if version, ok := strings.CutPrefix(line, "## "); ok {
			versions = append(versions, version)
		}
		if kind, ok := strings.CutPrefix(line, "### "); ok {
			require.Regexp(t, section, kind)
		}
	}
	require.NotEmpty(t, versions)
	require.Equal(t, "[Unreleased]", versions[0])
	for _, version := range versions[1:] {
		require.Regexp(t, release, version)
	}
	for tag := range strings.FieldsSeq(run(t, "git", "tag", "--points-at", "HEAD", "v*")) {
		require.Greater(t, len(versions), 1, "HEAD is %s", tag)
		require.True(t, strings.HasPrefix(versions[1], "["+tag[1:]+"]"), "HEAD is %s and the newest release is %s", tag, versions[1])
	}
}
