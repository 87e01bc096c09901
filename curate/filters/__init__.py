"""The rules that drop pairs, by what they look at; each looks at annotations only and says why."""
