"""A world with exact answers, small enough that every expectation is a sum.

    mdp          a Markov decision process as arrays: exact values, objective, gradient; every trajectory
    gridworld    the world of the lessons, as an MDP and as an environment of gymnasium
    collection   episodes by the thousand, from arrays or from any environment
"""
