# Interrupt handlers: ring 0, plain integer instructions. Lines end themselves.

.section .text.steady_interrupts, "ax"

# Frame of the processor above three saved registers: RIP, CS, RFLAGS, RSP, SS.
.set FRAME, 24
.set RING3_CODE, 0x23
.set RING3_DATA, 0x1B
# TF, IF, DF, NT, VM, and the bit that is always set; of these IF and the last are expected.
.set FLAGS_LOOKED_AT, 0x24702
.set FLAGS_EXPECTED, 0x202

# The timer: looks at the frame, reads the time, keeps the distance to the interrupt before, and has the
# computation left once as many are counted as are wanted.
.global steady_timer_interrupt
.type steady_timer_interrupt, @function
steady_timer_interrupt:
    push rax
    push rcx
    push rdx
    mov rax, [rsp + FRAME]
    cmp rax, offset steady_loop
    jb 2f
    cmp rax, offset steady_loop_end
    jae 2f
    inc qword ptr [{record} + {in_loop}]
    mov rax, [{stack}]
    cmp rax, [rsp + FRAME + 24]
    jne 3f
2:  cmp qword ptr [rsp + FRAME + 8], RING3_CODE
    jne 3f
    cmp qword ptr [rsp + FRAME + 32], RING3_DATA
    jne 3f
    mov rax, [rsp + FRAME + 16]
    and eax, FLAGS_LOOKED_AT
    cmp eax, FLAGS_EXPECTED
    je 4f
3:  mov rax, [{record} + {wrong_frames}]
    inc qword ptr [{record} + {wrong_frames}]
    test rax, rax
    jnz 4f
    mov rax, [rsp + FRAME]
    mov [{record} + {wrong_frame}], rax
    mov rax, [rsp + FRAME + 8]
    mov [{record} + {wrong_frame} + 8], rax
    mov rax, [rsp + FRAME + 16]
    mov [{record} + {wrong_frame} + 16], rax
    mov rax, [rsp + FRAME + 24]
    mov [{record} + {wrong_frame} + 24], rax
    mov rax, [rsp + FRAME + 32]
    mov [{record} + {wrong_frame} + 32], rax
4:  cmp qword ptr [{record} + {asks_clock}], 0
    jne 5f
    mov rax, [{record} + {clock_page}]
    mov rax, [rax]
    jmp 6f
5:  mov edx, {monotonic_low}
    in eax, dx
    mov ecx, eax
    mov edx, {monotonic_high}
    in eax, dx
    shl rax, 32
    or rax, rcx
6:  mov rcx, [{record} + {last_ns}]
    mov [{record} + {last_ns}], rax
    sub rax, rcx
    jae 7f
    inc qword ptr [{record} + {backwards}]
    xor eax, eax
7:  cmp rax, [{record} + {longest_ns}]
    jbe 8f
    mov [{record} + {longest_ns}], rax
8:  mov rcx, [{record} + {counted}]
    mov edx, {kept_mask}
    and rdx, rcx
    mov [{record} + {distances_ns} + 8 * rdx], rax
    inc rcx
    mov [{record} + {counted}], rcx
    cmp rcx, [{record} + {wanted}]
    jb 9f
    mov qword ptr [{attention}], 1
9:  pop rdx
    pop rcx
    pop rax
    iretq
.size steady_timer_interrupt, . - steady_timer_interrupt

# The console: takes every byte that has come in.
.global steady_console_interrupt
.type steady_console_interrupt, @function
steady_console_interrupt:
    push rax
    push rcx
    push rdx
2:  mov edx, {line_status}
    in al, dx
    test al, 1
    jz 3f
    mov edx, {console_data}
    in al, dx
    mov rcx, [{record} + {typed_count}]
    movzx edx, cl
    mov [{record} + {typed} + rdx], al
    inc rcx
    mov [{record} + {typed_count}], rcx
    jmp 2b
3:  mov qword ptr [{attention}], 1
    pop rdx
    pop rcx
    pop rax
    iretq
.size steady_console_interrupt, . - steady_console_interrupt

# The network: has the computation left, and leaves the rest to the driver's handler.
.global steady_network_interrupt
.type steady_network_interrupt, @function
steady_network_interrupt:
    mov qword ptr [{attention}], 1
    jmp ring0_network_interrupt
.size steady_network_interrupt, . - steady_network_interrupt
