"""The loops in disassembled machine code are found."""

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from bench.gpu.machine_code import loop_of

TEXT = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/              @!P0 LDG.E.U16 R2, desc[UR4][R4.64] ;
        /*0020*/               @P1 BRA `(.L_x_1) ;
        /*0030*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0040*/                   HGMMA.64x64x16.F32.BF16 R24, R136, gdesc[UR12], R24, gsb0 ;
.L_x_1:
        /*0050*/             @!UP0 UIADD3 UR4, UR4, 0x1, URZ ;
        /*0060*/               @P0 BRA `(.L_x_0) ;
.L_x_2:
        /*0070*/                   EXIT ;
        /*0080*/                   BRA `(.L_x_2) ;
"""


def test_the_longest_loop_is_from_its_label_to_the_branch_back():
    loop = loop_of(TEXT)
    assert loop == {"LDG": 1, "BRA": 2, "BAR": 1, "HGMMA": 1, "UIADD3": 1}
    assert loop_of(TEXT.replace(".L_x_0)", ".L_x_9)")) == {"EXIT": 1, "BRA": 1}


def test_what_some_versions_say_behind_an_instruction_hides_no_branch():
    """As Triton 3.6 prints code for 12.0; before, all loops were counted as one instruction."""
    annotated = TEXT.replace(" ;", "      &wr=0x2   ?trans1;")
    assert loop_of(annotated) == loop_of(TEXT)
