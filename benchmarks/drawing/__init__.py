"""How figures are drawn: units, markup, scales and charts. Nothing here knows what was measured."""
