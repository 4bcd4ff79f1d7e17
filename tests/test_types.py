"""Whole-body actions, states and contracts survive the round trip and refuse what they cannot hold."""

import os

import numpy as np
import pytest

from wbvla.contract import ContractMismatch, differences, load_contract, require_match, save_contract
from wbvla.robots import get_robot
from wbvla.types import ACTION_DIM, ArmTarget, LocoCommand, Proprioception, WholeBodyAction, action_names, state_names


def test_action_round_trip():
    rng = np.random.default_rng(0)
    for flags in ((1, -1, 0), (0, 0, 1)):
        action = WholeBodyAction(ArmTarget(rng.normal(size=14), rng.random(2)), LocoCommand(*flags, 0.6))
        again = WholeBodyAction.from_vector(action.to_vector())
        assert again.loco.flags.tolist() == list(flags) and abs(again.loco.height_m - 0.6) < 1e-6
        np.testing.assert_array_equal(again.to_vector(), action.to_vector())


def test_names_match_widths():
    robot = get_robot("g1")
    assert len(action_names(robot.arm_joints)) == ACTION_DIM
    body = Proprioception(np.zeros(29), np.zeros(29), np.zeros(3), np.array([0, 0, -1.0]))
    assert body.to_state(LocoCommand()).shape == (len(state_names(robot.joints)),) == (68,)


@pytest.mark.parametrize("bad", [np.zeros(19), np.full(20, np.nan)])
def test_bad_actions_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        WholeBodyAction.from_vector(bad)


def test_flags_are_ternary():
    with pytest.raises(ValueError, match="-1, 0 or 1"):
        LocoCommand(s_x=2)


def test_a_contract_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    """Else a power cut may leave its name with nothing in it."""
    events, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("written"), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("in place"), replace(a, b)))
    save_contract(tmp_path / "contract.json", {"kind": "lmo"})
    assert events == ["written", "in place"]


def test_contract_round_trip_and_difference(tmp_path):
    contract = {"kind": "lmo", "joints": ["a", "b"], "kp": [1.0, 2.0], "nested": {"rate": 50}}
    save_contract(tmp_path / "contract.json", contract)
    assert load_contract(tmp_path / "contract.json", "lmo") == contract
    other = {**contract, "kp": [1.0, 2.5], "nested": {"rate": 100}}
    assert differences(contract, contract) == []
    for odd in (float("inf"), float("nan")):
        assert differences({"a": 0.5}, {"a": odd}) and differences({"a": odd}, {"a": 0.5})
    lines = differences(contract, other)
    assert lines == ["kp[1]: got 2.5, expected 2.0", "nested.rate: got 100, expected 50"]
    with pytest.raises(ContractMismatch, match="nested.rate"):
        require_match(contract, other, "test")
    with pytest.raises(ValueError, match="expected 'vla'"):
        load_contract(tmp_path / "contract.json", "vla")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="expected JSON"):
        load_contract(tmp_path / "broken.json")
    with pytest.raises(ValueError, match="no contract at"):
        load_contract(tmp_path / "absent.json")
