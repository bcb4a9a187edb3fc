# The ring-0 part of every guest. Plain integer instructions only, and few: some hosts emulate ring 0.
#
# Ring 3 calls a routine in ring 0 by dividing by zero at one known place: RAX is the routine's address,
# RDI, RSI and RDX its arguments, RAX its answer. SYSCALL would be the usual way; but a software-assisted
# KVM was found to enter its target without leaving ring 3, and an exception is right on every kind, and
# quicker there. There is no protection between the rings and none is wanted: the rings exist because the
# program runs at full speed only in ring 3.

.set KERNEL_CODE, 0x08
.set USER_DATA, 0x1B            # 0x18 with RPL 3
.set USER_CODE, 0x23            # 0x20 with RPL 3
.set TASK_STATE, 0x28
.set INTERRUPT_GATE, 0x8E00     # present, ring 0, 64-bit, interrupts off inside
.set LINES, 16
.set EXCEPTIONS, 32
.set STUB_BYTES, 16

.section .text.guest_entry, "ax"

# Entered by the loader: ring 0, interrupts off, RDI = boot information. Goes on in ring 3.
.global guest_entry
guest_entry:
    mov eax, offset task_state
    mov [task_state_descriptor + 2], ax
    shr eax, 16
    mov [task_state_descriptor + 4], al
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov eax, TASK_STATE
    ltr ax
    # IRETQ to ring 3 takes selectors of ring 0 away on hardware, and leaves them on software-assisted KVM: none are left to take.
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov esp, offset ring0_stack_top
    push USER_DATA
    push offset ring3_stack_top
    push 2
    push USER_CODE
    push offset ring3_entry
    iretq

ring3_entry:
    call {start}
    ud2

# Ring 3: runs the routine at RAX in ring 0.
.global ring0_gate
ring0_gate:
    xor ecx, ecx
gate_instruction:
    div ecx
    ret

# Ring 0: the exception of that division, taken for what it is only at that place.
divide_error:
    cmp qword ptr [rsp], offset gate_instruction
    jne divide_error_stub
    add qword ptr [rsp], 2
    and dword ptr [rsp + 16], ~0x10000  # RF, which not every host sets there: the frame stays in memory
    call rax
    iretq

# Routines for ring 3 to call. On entry [rsp + 24] is the RFLAGS ring 3 goes on with.

.global ring0_enable_interrupts
ring0_enable_interrupts:
    or qword ptr [rsp + 24], 0x200
    ret

.global ring0_disable_interrupts
ring0_disable_interrupts:
    and qword ptr [rsp + 24], ~0x200
    ret

# Waits for an interrupt, which is handled before this returns.
.global ring0_wait
ring0_wait:
    sti
    hlt
    cli
    ret

# RDI bytes, RSI how many (at least one): to the serial port, a transmit FIFO of 16 at a time.
.global ring0_console_write
ring0_console_write:
    mov edx, 0x3FD
2:  in al, dx
    test al, 0x20
    jz 2b
    mov edx, 0x3F8
    mov ecx, 16
3:  mov al, [rdi]
    out dx, al
    inc rdi
    dec rsi
    jz 4f
    dec ecx
    jnz 3b
    jmp ring0_console_write
4:  ret

# Network: EDI not 0 to tell the device of frames to send; then, if the used index of the receive queue
# is ESI, waits for an interrupt. Interrupts of the queue are wanted only while it waits: what arrives
# after the comparison arrives as one, and ends HLT.
.global ring0_network_exchange
ring0_network_exchange:
    test edi, edi
    jz 2f
    mov edx, {network_base}
    mov dword ptr [rdx + {queue_notify}], {transmit_queue}
2:  mov word ptr [{receive_memory} + {available_flags}], 0
    movzx ecx, word ptr [{receive_memory} + {used_index}]
    cmp esi, ecx
    jne 3f
    sti
    hlt
    cli
3:  mov word ptr [{receive_memory} + {available_flags}], {no_interrupt}
    ret

# The network's interrupt: wants no further one, and lowers the line.
.global ring0_network_interrupt
ring0_network_interrupt:
    mov word ptr [{receive_memory} + {available_flags}], {no_interrupt}
    push rdx
    mov edx, {network_base}
    mov dword ptr [rdx + {interrupt_acknowledge}], 3
    pop rdx
    inc qword ptr [interrupt_counts + 8 * 5]
    iretq

# A disk's interrupt: lowers its line. What is complete is in the queue.
.macro disk_interrupt number, line
.global ring0_disk_\number\()_interrupt
ring0_disk_\number\()_interrupt:
    push rdx
    mov edx, {disk_base} + \number * {disk_bytes}
    mov dword ptr [rdx + {interrupt_acknowledge}], 3
    pop rdx
    inc qword ptr [interrupt_counts + 8 * \line]
    iretq
.endm
disk_interrupt 0, 11
disk_interrupt 1, 12
disk_interrupt 2, 14
disk_interrupt 3, 6

# Exceptions: the vector, an error code where the processor pushes none, and on to one place.
.balign STUB_BYTES
exception_stubs:
divide_error_stub:
.set vector, 0
.rept EXCEPTIONS
    .balign STUB_BYTES
    .if ((1 << vector) & 0x60227D00) == 0
        push 0
    .endif
    push vector
    jmp exception
    .set vector, vector + 1
.endr

# Interrupts: each counts itself and returns. The controller needs no end-of-interrupt.
.balign STUB_BYTES
interrupt_stubs:
.set line, 0
.rept LINES
    .balign STUB_BYTES
    inc qword ptr [interrupt_counts + 8 * line]
    iretq
    .set line, line + 1
.endr

# Goes on in ring 3 at the fault report: vector, error code, RIP, CR2.
exception:
    pop rdi
    pop rsi
    mov rdx, [rsp]
    mov rcx, cr2
    mov esp, offset ring0_stack_top
    push USER_DATA
    push offset ring3_stack_top
    push 2
    push USER_CODE
    push offset ring3_fault
    iretq

ring3_fault:
    call {fault}
    ud2

.section .data.shim, "aw"
.balign 16
global_descriptors:
    .quad 0
    .quad 0x00AF9B000000FFFF    # 0x08: ring-0 code, 64-bit
    .quad 0x00CF93000000FFFF    # 0x10: ring-0 data
    .quad 0x00CFF3000000FFFF    # 0x18: ring-3 data
    .quad 0x00AFFB000000FFFF    # 0x20: ring-3 code, 64-bit
task_state_descriptor:          # 0x28: its base is filled in at the entry
    .quad 0x0000890000000000 + task_state_end - task_state - 1
    .quad 0
gdt_pointer:
    .word . - global_descriptors - 1
    .quad global_descriptors
idt_pointer:
    .word (EXCEPTIONS + LINES) * 16 - 1
    .quad interrupt_descriptors

# A gate holds its handler's address in pieces. The linker puts the shim at 1 MiB, so bits 16 to 31 of every
# address in it are 0x0010 and the rest is the distance from its beginning.
.macro gate handler, index
    .word \handler - guest_entry + \index * STUB_BYTES, KERNEL_CODE, INTERRUPT_GATE, 0x0010
    .quad 0
.endm

.balign 16
.global interrupt_descriptors
interrupt_descriptors:
    gate divide_error, 0
.set vector, 1
.rept EXCEPTIONS - 1
    gate exception_stubs, vector
    .set vector, vector + 1
.endr
.set line, 0
.rept LINES
    gate interrupt_stubs, line
    .set line, line + 1
.endr

# Task state: the ring-0 stack, and every port open to ring 3.
.balign 16
task_state:
    .long 0
    .quad ring0_stack_top
    .skip 90
    .word 104
    .skip 8192
    .byte 0xFF
task_state_end:

.section .bss.shim, "aw", @nobits
.balign 16
.global interrupt_counts
interrupt_counts:
    .skip LINES * 8
.balign 4096
    .skip 16384
ring0_stack_top:
    .skip 262144
ring3_stack_top:
