# The computation, for ring 3: between its first and last instruction no exit is made. RDI: the registers'
# values. Everything is live all the while: 14 vector registers, the x87 stack, both control words and every
# general register.

.section .text.steady_compute, "ax"

# A lane is multiplied by 2^shift + 1, and its summand added.
.macro steady_stir state, summand
    movdqa xmm14, \state
    psllq xmm14, {shift}
    paddq \state, xmm14
    paddq \state, \summand
.endm

.global steady_compute
.type steady_compute, @function
steady_compute:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rip + {stack}], rsp
    movdqa xmm0, [rdi + {lanes}]
    movdqa xmm1, [rdi + {lanes} + 16]
    movdqa xmm2, [rdi + {lanes} + 32]
    movdqa xmm3, [rdi + {lanes} + 48]
    movdqa xmm4, [rdi + {lanes} + 64]
    movdqa xmm5, [rdi + {lanes} + 80]
    movdqa xmm6, [rdi + {lanes} + 96]
    movdqa xmm7, [rdi + {summands}]
    movdqa xmm8, [rdi + {summands} + 16]
    movdqa xmm9, [rdi + {summands} + 32]
    movdqa xmm10, [rdi + {summands} + 48]
    movdqa xmm11, [rdi + {summands} + 64]
    movdqa xmm12, [rdi + {summands} + 80]
    movdqa xmm13, [rdi + {summands} + 96]
    ldmxcsr [rdi + {sse_control}]
    fninit
    fldcw [rdi + {x87_control}]
    fld1
    fild qword ptr [rdi + {visits}]
    mov rbx, [rdi + {passes}]
    mov rbp, [rdi + {passes_max}]
    mov r8, [rdi + {pages}]
    mov r9, [rdi + {pages_end}]
    mov r12, [rdi + {counter}]
    movabs r10, {factor}
    movabs r11, {summand}
    movabs r13, {golden}
    mov r14d, {page_bytes}

.global steady_loop
steady_loop:
    mov r15, rbx
    and r15d, {word_mask}
    lea rsi, [r8 + 8 * r15]
2:  mov rax, [rsi]
    imul rax, r10
    add rax, r11
    mov [rsi], rax
    steady_stir xmm0, xmm7
    steady_stir xmm1, xmm8
    steady_stir xmm2, xmm9
    steady_stir xmm3, xmm10
    steady_stir xmm4, xmm11
    steady_stir xmm5, xmm12
    steady_stir xmm6, xmm13
    add r12, r13
    fadd st(0), st(1)
    add rsi, r14
    cmp rsi, r9
    jb 2b
    inc rbx
    cmp dword ptr [rip + {attention}], 0
    jne 3f
    cmp rbx, rbp
    jb steady_loop

.global steady_loop_end
steady_loop_end:
3:  movdqa [rdi + {lanes}], xmm0
    movdqa [rdi + {lanes} + 16], xmm1
    movdqa [rdi + {lanes} + 32], xmm2
    movdqa [rdi + {lanes} + 48], xmm3
    movdqa [rdi + {lanes} + 64], xmm4
    movdqa [rdi + {lanes} + 80], xmm5
    movdqa [rdi + {lanes} + 96], xmm6
    movdqa [rdi + {summands}], xmm7
    movdqa [rdi + {summands} + 16], xmm8
    movdqa [rdi + {summands} + 32], xmm9
    movdqa [rdi + {summands} + 48], xmm10
    movdqa [rdi + {summands} + 64], xmm11
    movdqa [rdi + {summands} + 80], xmm12
    movdqa [rdi + {summands} + 96], xmm13
    stmxcsr [rdi + {sse_control}]
    fnstcw [rdi + {x87_control}]
    fistp qword ptr [rdi + {visits}]
    fninit
    push 0x1F80                         # SSE control as the language expects it
    ldmxcsr [rsp]
    pop rax
    mov [rdi + {passes}], rbx
    mov [rdi + {counter}], r12
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
.size steady_compute, . - steady_compute
