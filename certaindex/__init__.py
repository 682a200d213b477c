"""How sure are we already? Answers, their equivalence, measures of certainty, stop rules."""
