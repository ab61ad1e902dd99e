"""A slow version of the meta-learner LSTM in float64, one coordinate at a time.

It was written in plain Python from section 3 of the paper, without looking at the package. So
agreement with it shows that the fast version is right.
"""

import math

import numpy as np


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def preprocess(x: float, p: float) -> tuple[float, float]:
    """Section 3.2, both branches as printed in the paper."""
    if abs(x) >= math.exp(-p):
        return math.log(abs(x)) / p, math.copysign(1.0, x)
    return -1.0, math.exp(p) * x


def lstm(features, hidden, cell, weights):
    """One step of an ordinary LSTM for one example. Gates: input, forget, candidate, output."""
    kernel, recurrent, bias = weights
    units = len(hidden)
    z = [
        sum(f * kernel[k, j] for k, f in enumerate(features))
        + sum(h * recurrent[k, j] for k, h in enumerate(hidden))
        + bias[j]
        for j in range(4 * units)
    ]
    new_hidden, new_cell = [], []
    for j in range(units):
        write, keep, out = (sigmoid(z[j + block * units]) for block in (0, 1, 3))
        c = keep * cell[j] + write * math.tanh(z[j + 2 * units])
        new_cell.append(c)
        new_hidden.append(out * math.tanh(c))
    return new_hidden, new_cell


def lstm_optimizer(weights: dict, gradients, theta_0, rule_inputs: str, p: float, scales):
    """Runs T updates of Andrychowicz et al.'s optimizer, or of RNNprop.

    Args:
        weights: first_layer and second_layer (kernel, recurrent, bias), output (kernel, bias),
            embedding (kernel, bias) for the inputs "normalized", and direct (kernel) for "means".
        gradients: [T, P].
        theta_0: [P].
        rule_inputs: "log_and_sign", "gradient", "normalized" or "means".
        p: constant of the preprocessing.
        scales: factors on the input and on the output.

    Returns:
        theta [T, P].
    """
    num_steps, num_coordinates = gradients.shape
    units = len(weights["first_layer"][2]) // 4
    thetas = np.zeros([num_steps, num_coordinates])
    for coordinate in range(num_coordinates):
        theta, mean, square = float(theta_0[coordinate]), 0.0, 0.0
        means = {0.5: 0.0, 0.9: 0.0, 0.97: 0.0, 0.99: 0.0}
        states = {name: ([0.0] * units, [0.0] * units) for name in ("first_layer", "second_layer")}
        for t in range(num_steps):
            gradient = float(gradients[t, coordinate])
            if rule_inputs == "log_and_sign":
                features = [*preprocess(gradient, p)]
            elif rule_inputs == "gradient":
                features = [scales[0] * gradient]
            elif rule_inputs == "means":
                for d in means:
                    means[d] = d * means[d] + math.sqrt(1.0 - d) * gradient
                features = [scales[0] * x for x in (gradient, *means.values())]
                direct = float(np.array(features) @ weights["direct"][0][:, 0])
            else:
                mean = 0.95 * mean + 0.05 * gradient
                square = 0.95 * square + 0.05 * gradient**2
                whole = 1.0 - 0.95 ** (t + 1)
                deviation = math.sqrt(square / whole) + 1e-8
                seen = np.array([gradient, mean / whole]) / deviation
                features = seen @ weights["embedding"][0] + weights["embedding"][1]
                features = [x if x > 0 else math.exp(x) - 1.0 for x in features]
            for name in states:
                states[name] = lstm(features, *states[name], weights[name])
                features = states[name][0]
            output = float(
                np.array(features) @ weights["output"][0][:, 0] + weights["output"][1][0]
            )
            if rule_inputs == "means":
                output += direct
            theta += scales[1] * (math.tanh(output) if rule_inputs == "normalized" else output)
            thetas[t, coordinate] = theta
    return thetas


def meta_lstm(weights: dict, gradients, losses, theta_0, gate_feedback: str, p: float):
    """Runs T updates.

    Args:
        weights: first_layer (kernel [4, 4H], recurrent [H, 4H], bias [4H]), W_F, b_F, W_I, b_I.
        gradients: [T, P].
        losses: [T].
        theta_0: [P].
        gate_feedback: "value" or "logit".
        p: constant of the preprocessing.

    Returns:
        theta [T, P], forget gates [T, P], input gates [T, P].
    """
    num_steps, num_coordinates = gradients.shape
    units = len(weights["first_layer"][2]) // 4
    thetas, forgets, inputs = (np.zeros([num_steps, num_coordinates]) for _ in range(3))
    for coordinate in range(num_coordinates):
        theta = float(theta_0[coordinate])
        hidden, cell = [0.0] * units, [0.0] * units
        f_back = i_back = 0.0
        for t in range(num_steps):
            gradient = float(gradients[t, coordinate])
            features = (*preprocess(float(losses[t]), p), *preprocess(gradient, p))
            hidden, cell = lstm(features, hidden, cell, weights["first_layer"])
            f_logit = float(weights["W_F"][:, 0] @ np.array([*hidden, theta, f_back]))
            i_logit = float(weights["W_I"][:, 0] @ np.array([*hidden, theta, i_back]))
            f_logit, i_logit = f_logit + weights["b_F"], i_logit + weights["b_I"]
            f, i = sigmoid(f_logit), sigmoid(i_logit)
            theta = f * theta - i * gradient
            f_back, i_back = (f, i) if gate_feedback == "value" else (f_logit, i_logit)
            thetas[t, coordinate], forgets[t, coordinate], inputs[t, coordinate] = theta, f, i
    return thetas, forgets, inputs
