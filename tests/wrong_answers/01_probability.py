"""Answers to the exercises of 01_probability that look right and are not."""

WRONG = {
    "ex_mle": [
        # the unbiased divisor N - 1, which is torch's and numpy's `cov` by habit
        """
def fit_normal(x):
    return x.mean(dim=0), torch.cov(x.T)
""",
        # deviations are not taken
        """
def fit_normal(x):
    return x.mean(dim=0), x.T @ x / len(x)
""",
        # one mean for all the coordinates
        """
def fit_normal(x):
    away = x - x.mean()
    return x.mean().expand(x.shape[1]), away.T @ away / len(x)
""",
    ],
    "ex_bits": [
        # padding counts
        """
def bits_per_character(log_probs, tokens):
    return (-log_probs.mean() / math.log(2)).item()
""",
        # END does not count
        """
def bits_per_character(log_probs, tokens):
    counted = (tokens != 0).cumprod(dim=1).bool()
    return (-log_probs[counted].mean() / math.log(2)).item()
""",
        # nats
        """
def bits_per_character(log_probs, tokens):
    counted = (tokens == 0).cumsum(dim=1) - (tokens == 0).long() == 0
    return -log_probs[counted].mean().item()
""",
        # a mean of the names' means: short names weigh too much
        """
def bits_per_character(log_probs, tokens):
    counted = (tokens == 0).cumsum(dim=1) - (tokens == 0).long() == 0
    each = (log_probs * counted).sum(dim=1) / counted.sum(dim=1)
    return (-each.mean() / math.log(2)).item()
""",
    ],
    "ex_sample": [
        # what was drawn is not read
        """
def sample_tokens(next_log_probs, uniforms, temperature=1.0):
    tokens = []
    for u in uniforms:
        q = (next_log_probs([]) / temperature).softmax(dim=0)
        tokens.append(int((q.cumsum(dim=0) <= u).sum()))
        if tokens[-1] == 0:
            break
    return tokens
""",
        # the temperature divides probabilities, which normalising undoes
        """
def sample_tokens(next_log_probs, uniforms, temperature=1.0):
    tokens = []
    for u in uniforms:
        q = next_log_probs(tokens).exp() / temperature
        q = q / q.sum()
        tokens.append(int((q.cumsum(dim=0) <= u).sum()))
        if tokens[-1] == 0:
            break
    return tokens
""",
        # END does not stop it
        """
def sample_tokens(next_log_probs, uniforms, temperature=1.0):
    tokens = []
    for u in uniforms:
        q = (next_log_probs(tokens) / temperature).softmax(dim=0)
        tokens.append(int((q.cumsum(dim=0) <= u).sum()))
    return tokens
""",
        # the most probable letter, whatever chance says
        """
def sample_tokens(next_log_probs, uniforms, temperature=1.0):
    tokens = []
    for u in uniforms:
        tokens.append(int(next_log_probs(tokens).argmax()))
        if tokens[-1] == 0:
            break
    return tokens
""",
    ],
}
